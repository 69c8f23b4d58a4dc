"""Masking of passwords and tokens in all text that is stored or sent."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

MASK = "***"
SHORTEST_VALUE = 6
"""Minimum length of environment values that are masked in free text: shorter ones are often ordinary words."""
# The lookbehinds exclude the special tokens of language models, such as pad_token and eos_token.
_WORDS = (
    r"(?:password|passwd|passphrase|pwd|secret|(?<!\bpad_)(?<!\beos_)(?<!\bbos_)(?<!\bcls_)(?<!\bsep_)(?<!\bunk_)"
    r"(?<!mask_)(?<!\bstart_)(?<!\bend_)(?<!class_)(?<!special_)token|credentials?|authorization|connection[_-]?string"
    r"|(?:api|secret|private|account|encryption|signing|access)[_-]?key(?:[_-]?id)?|(?-i:_PASS))"
)
_SECRET_NAME = re.compile(rf"{_WORDS}\Z", re.IGNORECASE)
_ORDINARY_NAMES = frozenset({"PWD", "OLDPWD"})
_QUOTED = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_NAME_END = rf"{_WORDS}[\"']?\]?"
_ANNOTATION = r"(?:[ \t]*:[ \t]*[\w.\[\], |]{1,40}?(?=[ \t]*=[^=]))?"
_SEPARATOR = rf"{_ANNOTATION}[ \t]*(?:[!=]==?|:=|=>|=|:(?!:))[ \t]*"
_SPACED_SEPARATOR = rf"{_ANNOTATION}(?:[ \t]*:(?!:)[ \t]*|[ \t]+=[ \t]+)"
# `name: value` or `name = value` on a line of its own: the value may contain spaces.
_LINE = re.compile(
    rf"(?P<start>^[+\- \t]*+(?:export[ \t]+)?[\"']?[\w.\-]*{_NAME_END}{_SPACED_SEPARATOR})(?P<value>[^\n]+)",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"(?P<start>{_NAME_END}{_SEPARATOR})(?P<value>{_QUOTED}|[^\s&]+)", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<start>(?<!\S)--?[\w\-]*{_WORDS}[ \t]+)(?P<value>{_QUOTED}|[^\s\-]\S*)", re.IGNORECASE)
_QUERY = re.compile(r"(?P<start>[?&](?:key|sig|signature|X-Amz-Signature)=)(?P<value>[^\s&#\"']+)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<start>://[^\s:/@\"']*:)(?P<value>[^\s/?#\"']{1,2048}|(?!\d{1,5}/)[^\s\"']{1,2048}?)(?P<end>@)"
)
_TOKEN_ADDRESS = re.compile(r"(?P<start>https?://)(?P<value>[^\s:/@\"'*]+)(?P<end>@)")
_HEADER = re.compile(r"(?P<start>\bBearer[ \t]+)(?P<value>(?=\S*\d|\S{20})[\w\-.~+/]{6,}=*)", re.IGNORECASE)
# Tokens of GitHub, GitLab, Hugging Face, OpenAI, AWS, Slack and Google, and JSON Web Tokens.
_KNOWN_FORM = re.compile(
    r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|hf_[A-Za-z]{20,}|sk-[\w\-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w\-]{10,}|AIza[\w\-]{30,}|eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*)"
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_TRIGGERS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "credential",
    "authorization",
    "connection",
    "key",
    "bearer",
    "sig",
    "://",
)
"""Texts without which a line cannot match the patterns above. Looking for them first is ten times as fast."""
_ORDINARY_VALUE = re.compile(
    rf"[\"']?(?:{re.escape(MASK)}.*|null|none|true|false|str|bytes|int|any|missing|\?\?\?|\$\{{[^}}]*\}}"
    r"|[a-z_][\w.]*(?:\([^\n]*\)|\[[^\n]*\]))?[\"']?[,;)\]}]*",
    re.IGNORECASE,
)
"""Values after a secret name that are no secrets: null, names of types, interpolations, and names or calls in code."""


@lru_cache(maxsize=10_000)
def is_secret_name(name: str) -> bool:
    """Returns True if the name of a key, option or variable means a secret: `api_key`, `HF_TOKEN`, not `max_tokens`."""
    return name not in _ORDINARY_NAMES and _SECRET_NAME.search(name) is not None


def mask(text: str) -> str:
    """Replaces the secrets in `text` by `***`. Masking twice has the same result as masking once.

    Recognizes values after a secret name, user parts of addresses, bearer tokens, private keys, tokens of a
    well-known form, and the values of environment variables with a secret name.
    """
    text = _KEY_BLOCK.sub(MASK, _mask_environment(text))
    return "\n".join(map(_masked_line, _KNOWN_FORM.sub(MASK, text).split("\n")))


def mask_value(name: str, value: str) -> str:
    """Masks the value of the key `name`: completely if the name means a secret, else only secrets within the value."""
    if is_secret_name(name) and not _ORDINARY_VALUE.fullmatch(value):
        return MASK
    return mask(value)


def mask_tree(value: Any, name: str = "") -> Any:
    """Copies nested dicts and lists, and masks each value by its key and its content."""
    if isinstance(value, Mapping):
        return {key: mask_tree(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_tree(item, name) for item in value]
    if isinstance(value, str):
        return mask_value(name, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and is_secret_name(name):
        return MASK
    return value


def mask_command(arguments: Sequence[str]) -> str:
    """Returns the arguments as a shell command. Each is masked separately, to mask values with spaces completely."""
    return shlex.join(_masked_arguments(arguments))


def _masked_arguments(arguments: Iterable[str]) -> Iterable[str]:
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals:
            yield f"{mask(name)}={mask_value(name, value)}"
        elif option and not argument.startswith("-"):
            yield mask_value(option, argument)
        else:
            yield mask(argument)
        option = name if name.startswith("-") and not equals else ""


def _mask_environment(text: str) -> str:
    # The names are listed first, because other threads may change the environment during the iteration.
    values = {os.environ.get(name, "") for name in list(os.environ) if is_secret_name(name)}
    values = {value for value in values if len(value) >= SHORTEST_VALUE}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK).replace(quote(value, safe=""), MASK)
    return text


def _masked_line(line: str) -> str:
    lower = line.lower()
    if any(trigger in lower for trigger in _TRIGGERS):
        for pattern in (_HEADER, _ADDRESS, _TOKEN_ADDRESS, _LINE, _PAIR, _OPTION, _QUERY):
            line = pattern.sub(_masked_value, line)
    return line


def _masked_value(match: re.Match[str]) -> str:
    groups = match.groupdict()
    if _ORDINARY_VALUE.fullmatch(groups["value"]):
        return match.group()
    return f"{groups['start']}{MASK}{groups.get('end') or ''}"
