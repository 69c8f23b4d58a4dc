"""Masking of passwords and tokens in all text that is stored, sent or shown."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST_VALUE = 6
"""Minimum length of values that are masked in free text wherever they occur: shorter ones are often ordinary words."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# The patterns for names expect lower-case words, joined by underscores.
_SECRET_NAME = re.compile(
    r"""(?: (?:^|_)(?:pass|pw|auth|bearer|cookies?|creds?|dsn|jwt|oauth|otp|passwords|sas|secrets|webhook)
    | password|passwd|passphrase|passcode|pwd|secret|token|credentials?|authorization|connection_?(?:string|str)
    | (?:access|account|api|private|secret)_?key
    | (?:^|_)(?:admin|anthropic|app|application|auth|aws|azure|client|cohere|comet|databricks|datadog|deploy|encryption
        |gcp|gcs|gemini|github|gitlab|google|hf|huggingface|kaggle|license|master|mistral|neptune|openai|roboflow|s
        |server|service|session|shared|signing|ssh|storage|stripe|subscription|token|wandb)_(?:key|pat)
    )(?:_(?:hash|id|plain|raw|text|uri|url|value))*\Z""",
    re.VERBOSE,
)
# Passes over data, special tokens of language models, and keys of dictionaries and databases.
_ORDINARY_NAME = re.compile(
    r"""(?:^|_)(?: (?:backward|band|each|first|forward|full|high|last|low|multi|num|one|per|second|single|two)_pass
    | (?:blank|bos|class|cls|end|eos|image|mask|next|oov|pad|sep|special|start|stop|unk)_token
    | (?:cache|dict|feature|foreign|group|image|label|lookup|partition|primary|public|row|sort)_key
    )(?:_(?:id|text|value))*\Z""",
    re.VERBOSE,
)
LONGEST_NAME = 100
_NAME = re.compile(r"\w[\w.\-]*+")
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_ANNOTATION = r"(?:[ \t]*:[ \t]*[\w.\[\], |]{1,40}?(?=[ \t]*=[^=]))?"
_SEPARATOR = rf"[\"']?\]?{_ANNOTATION}[ \t]*(?:[!=]==?|:=|=>|=|:(?!:))[ \t]*"
_SPACED_SEPARATOR = rf"[\"']?\]?{_ANNOTATION}(?:[ \t]*:(?!:)[ \t]*|[ \t]+=[ \t]+)"
# Patterns for the text after a secret name. At the start of a line, `name: value` may contain spaces.
_LINE_START = re.compile(r"[+\- \t]*+(?:export[ \t]+)?[\"']?")
_LINE = re.compile(rf"{_SPACED_SEPARATOR}(?P<value>[^\n]+)")
_PAIR = re.compile(rf"{_SEPARATOR}(?P<value>{_QUOTED}|[^\s&]+)")
# Within `{`, a value without quotes ends at `,` or `}` and may contain spaces.
_ENTRY = re.compile(
    rf"(?:{_SEPARATOR}|{_SPACED_SEPARATOR})(?P<value>{_QUOTED}|(?:[\[{{(][^\]}})\n]{{0,200}}[\]}})]|[^,}}\n])+)"
)
_OPTION_START = re.compile(r"(?:\A|.*\s)--?\Z")
_OPTION = re.compile(rf"[ \t]+(?P<value>{_QUOTED}|[^\s\-]\S*)")
_QUERY = re.compile(r"(?P<start>[?&](?:key|sig|signature|X-Amz-Signature)=)(?P<value>[^\s&#\"']+)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<start>://[^\s:/@\"']*:)(?P<value>[^\s/?#\"']{1,2048}|(?!\d{1,5}/)[^\s\"']{1,2048}?)(?P<end>@)"
)
_TOKEN_ADDRESS = re.compile(r"(?P<start>https?://)(?P<value>[^\s:/@\"'*]+)(?P<end>@)")
_LOGIN = re.compile(  # of curl
    r"(?P<start>(?<![\w\-])(?:-u|--(?:proxy-)?user)[ \t=,\"']*?(?P<quote>[\"'])?[^\s:/=,\"']{0,100}:)"
    r"(?P<value>(?!\d+(?![^\s\"'])|//|:)(?(quote)[^\"'\n]+|[^\s\"']+))"
)
_HEADER = re.compile(r"(?P<start>\bBearer[ \t]+)(?P<value>(?=\S*\d|\S{20})[\w\-.~+/]{6,}=*)", re.IGNORECASE)
# Tokens of GitHub, GitLab, Hugging Face, OpenAI, AWS, Slack and Google, JSON Web Tokens, and addresses of webhooks.
_KNOWN_FORM = re.compile(
    r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|hf_[A-Za-z]{20,}|sk-[\w\-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w\-]{10,}|AIza[\w\-]{30,}|eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*"
    r"|hooks\.slack\.com/[^\s\"']+|discord(?:app)?\.com/api/webhooks/[^\s\"']+)"
)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_TRIGGER = re.compile(r"-u|pass|_pat\b|pw|secret|token|key|auth|cred|bearer|cookie|conn|dsn|jwt|otp|sas|sig|hook|://")
"""Texts without which a line cannot match the patterns above. Searching for them first is ten times as fast."""
_NO_SECRET = rf"{re.escape(MASK)}|null|none|true|false|\?\?\?|\$\{{[^}},]*(?:,[ ]*(?:null|''|\"\")?)?\}}"
_ORDINARY_VALUE = re.compile(rf"[\"']?(?:{_NO_SECRET})?[\"']?", re.IGNORECASE)
"""Values of a secret key that are no secrets: null, switches, and interpolations without a default value."""
_ORDINARY_TEXT = re.compile(
    rf"[\"']?(?:{_NO_SECRET}|{re.escape(MASK)}.*|str|bytes|int|any|missing"
    r"|[a-z_][\w.]*(?:\([^\n]*\)|\[[^\n]*\]))?[\"']?[,;.)\]}]*",
    re.IGNORECASE,
)
"""The same in free text, where code follows secret names too: names of types, and calls."""
_ORDINARY_WORD = re.compile(r"[A-Za-z]?[a-z]{0,10}")
"""Passwords within addresses that are not masked elsewhere: `postgresql://mlflow:mlflow@host` is common."""
_remembered: set[str] = set()


@lru_cache(maxsize=10_000)
def is_secret_name(name: str) -> bool:
    """Returns True if the name of a key, option or variable means a secret: `api_key`, `HF_TOKEN`, not `max_tokens`."""
    words = "_".join(word.lower() for word in _WORD.findall(name))
    if name in ("PWD", "OLDPWD") or _ORDINARY_NAME.search(words):
        return False
    return (name.isupper() and words.endswith("_key")) or _SECRET_NAME.search(words) is not None


def mask(text: str) -> str:
    """Replaces the secrets in `text` by `***`. Masking twice has the same result as masking once.

    Recognizes values after a secret name, user parts of addresses, bearer tokens, private keys, tokens of a
    well-known form, the values of environment variables with a secret name, and remembered secrets.
    """
    # The names are listed first, because other threads may change the environment during the iteration.
    values = {each for name in list(os.environ) for each in _secrets_in(name, os.environ.get(name, ""))} | _remembered
    for value in sorted(values, key=len, reverse=True):
        text = _written(value).sub(MASK, text).replace(quote(value, safe=""), MASK)
    text = _KNOWN_FORM.sub(MASK, _KEY_BLOCK.sub(MASK, text))
    return "\n".join(map(_masked_line, text.split("\n")))


def mask_value(name: str, value: str) -> str:
    """Masks the value of the key `name`: completely if the name means a secret, else only secrets within the value."""
    if is_secret_name(name) and not _ORDINARY_VALUE.fullmatch(value):
        return MASK
    return mask(value)


def mask_override(override: str) -> str:
    """Masks an override KEY=VALUE, or another argument of a command."""
    name, equals, value = override.partition("=")
    return f"{mask(name)}={mask_value(name, value)}" if equals else mask(override)


def mask_tree(value: Any, name: str = "") -> Any:
    """Copies nested dicts and lists, and masks each value by its key, a secret key above it, and its content."""
    if isinstance(value, Mapping):
        return {key: mask_tree(item, name if is_secret_name(name) else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_tree(item, name) for item in value]
    if isinstance(value, str):
        return mask_value(name, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and is_secret_name(name):
        return MASK
    return value


def remember_secrets(value: Any, name: str = "") -> None:
    """Notes the secrets of a resolved config, so that `mask` finds them in messages of libraries and servers too."""
    if isinstance(value, str):
        _remembered.update(_secrets_in(name, value))
    elif isinstance(value, Mapping | list | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else ((name, item) for item in value):
            remember_secrets(item, name if is_secret_name(name) else str(key))


def mask_command(arguments: Sequence[str]) -> str:
    """Returns the arguments as a shell command. Each is masked separately, to mask values with spaces completely."""
    return shlex.join(_masked_arguments(arguments))


def _masked_arguments(arguments: Iterable[str]) -> Iterable[str]:
    option = ""
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if option and not equals and not argument.startswith("-"):
            yield mask_value(option, argument)
        else:
            yield mask_override(argument)
        option = name if name.startswith("-") and not equals else ""


@lru_cache(maxsize=1_000)
def _secrets_in(name: str, value: str) -> tuple[str, ...]:
    """Returns the secrets in the value of a key or variable that are long enough to be masked in any text."""
    if is_secret_name(name):
        found = [] if _ORDINARY_VALUE.fullmatch(value) else [value]
    else:
        found = [match["value"] for pattern in (_ADDRESS, _QUERY) for match in pattern.finditer(value)]
        found = [each for part in found for each in {part, unquote(part)} if not _ORDINARY_WORD.fullmatch(each)]
    return tuple(each for each in found if len(each.strip()) >= SHORTEST_VALUE)


@lru_cache(maxsize=1_000)
def _written(value: str) -> re.Pattern[str]:
    """Returns a pattern for the value as it is, on one line, and with the escapes of Python, JSON, YAML and a shell."""
    parts = []
    for part in re.findall(r"[\\'\"]+|\s+|.", value.strip()):
        if part[0] in "\\'\"":  # possessive, to take linear time
            parts.append(rf"[\\'\"]{{{len(part)},{8 * len(part)}}}+")
        elif part.isspace():
            parts.append(r"(?:\s|\\{1,8}(?:[nrtfv\s]|[xu]0+[9a-d]))+")
        else:
            parts.append(re.escape(part) if part.isascii() else rf"(?:{part}|\\{{1,8}}(?i:[xu]0*{ord(part):x}))")
    return re.compile("".join(parts))


def _masked_line(line: str) -> str:
    if _TRIGGER.search(line.lower()):
        for pattern in (_HEADER, _LOGIN, _ADDRESS, _TOKEN_ADDRESS):
            line = pattern.sub(_masked_match, line)
        line = _QUERY.sub(_masked_match, _mask_named(line))
    return line


def _mask_named(line: str) -> str:
    """Masks the values after secret names."""
    parts, at, first = [], 0, _LINE_START.match(line)
    for name in _NAME.finditer(line):
        start, end = name.span()
        if start < at or not is_secret_name(name[0][-LONGEST_NAME:]):
            continue
        before = line[max(0, start - 3) : start]
        pair = _ENTRY if before.rstrip(" \"'")[-1:] in ("{", ",") and 0 <= line.find("{") < start else _PAIR
        usual = _LINE if first and start == first.end() else pair
        patterns = (usual, pair, _OPTION if _OPTION_START.match(before) else pair)
        values = (found for pattern in patterns if (found := pattern.match(line, end)))
        secret = next((found for found in values if not _ORDINARY_TEXT.fullmatch(found["value"])), None)
        if secret is not None:
            parts += [line[at : secret.start("value")], MASK]
            at = secret.end("value")
    return "".join([*parts, line[at:]])


def _masked_match(match: re.Match[str]) -> str:
    groups = match.groupdict()
    if _ORDINARY_TEXT.fullmatch(groups["value"]):
        return match.group()
    return f"{groups['start']}{MASK}{groups.get('end') or ''}"
