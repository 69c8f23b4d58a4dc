"""Arguments of a command as users type them, rewritten into the form that Hydra accepts."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from experiments import DISTRIBUTION
from experiments.config.aliases import ALIASES
from experiments.config.reference import PRESETS, quoted
from experiments.config.registry import COMMANDS, GROUPS
from experiments.errors import ConfigError, close_to

FLAGS = frozenset({"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"})
VALUED = frozenset({"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"}) | {
    *("--config-dir", "-cd", "--experimental-rerun"),
}
"""Options of Hydra 1.3, without and with a value. `--info` takes one of its topics or none."""
TOPICS = frozenset({"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"})
_WRITTEN = re.compile(r"|null|'[^']*'|\"(?:[^\"\\]|\\.)*\"|\$\{.*\}")
POSITIONAL = {"evaluate": "run_id", "predict": "path"}
"""Commands that accept arguments without a key, and the key they mean."""
_COMPLETION = ("--shell-completion", "-sc")
_SYNTAX = re.compile(r"[\[\]{}(),'\"$]")
"""Characters with a meaning in Hydra's values. A value without them can only be meant as text."""
_LOST = re.compile(r"\\(?![\\()\[\]{}:=, \t'\"])|=(?:[^\[{(]*,)?\d+(?:_\d+)+(?:,|$)")
"""What Hydra would remove: backslashes that escape nothing, as in a Windows path, and underscores between digits."""
_SHOWN = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help")


def rewritten(arguments: Sequence[str], command: str) -> list[str]:
    """Returns the arguments with the options first and with the values quoted that Hydra would not parse.

    `command` is the name of a config, `config` for the training. Prints the version if it is asked for. Raises
    ConfigError for unknown options, for text that cannot be read, and for settings of a sweep without `-m`.
    """
    if any(option in arguments for option in _COMPLETION):
        return list(arguments)
    options, overrides = _split(arguments, command)
    if "--hydra-help" in options:
        return ["--hydra-help"]  # does not accept overrides
    if "--version" in options:
        print(f"experiments {version(DISTRIBUTION)}")
        raise SystemExit
    overrides = _with_key(overrides, command)
    sweeps = any(option in options for option in ("-m", "--multirun")) or "hydra.mode=MULTIRUN" in overrides
    shown = next((option for option in _SHOWN if any(each.partition("=")[0] == option for each in options)), "")
    parsed = [_parsed(override, sweeps=sweeps) for override in overrides]
    if "--resolve" in options and not shown:
        raise ConfigError("--resolve belongs to --cfg job: expected both. Add --cfg job, or leave it out.")
    if sweeps and command != "config":
        raise ConfigError(f"{command} starts no sweep: expected one value for each key. Leave out -m.")
    if sweeps and shown:
        raise ConfigError(
            f"{shown} shows a single config, but -m starts a sweep: expected one of the two. Leave out -m, or set "
            "sweep.preview=true to list the jobs."
        )
    if sweeps:
        return [*options, *_below_swept_groups(parsed)]
    if not shown:
        _refuse_sweeps(parsed, command)
    return [*options, *(str(override.input_line) for override in parsed)]


def _split(arguments: Sequence[str], command: str) -> tuple[list[str], list[str]]:
    """Separates the options, with their values, from the overrides: Hydra expects all overrides side by side."""
    options: list[str] = []
    overrides: list[str] = []
    left = list(arguments)
    while left:
        each = left.pop(0)
        name, equals, value = each.partition("=")
        if name in (*GROUPS, *PRESETS) and re.fullmatch(r"null|(.*,)?(true|false|nan|[\d.]+)(,.*)?|shared/.*", value):
            raise ConfigError(f"{each} is not an option: expected its name. experiments help {name} lists the options.")
        if not each.startswith("-"):
            overrides.append(each)
        elif name in FLAGS or (name in VALUED and equals):
            options.append(each)
        elif name in ("--info", "-i"):
            options.append(f"--info={left.pop(0)}" if not equals and left and left[0] in TOPICS else each)
        elif name in VALUED and left:
            options += [each, left.pop(0)]
        else:
            raise _unknown_option(each, left, command)
    return options, overrides


def _with_key(overrides: Sequence[str], command: str) -> list[str]:
    """Adds the key to arguments without one, as in `experiments predict cat.jpg dog.jpg`."""
    bare = [each for each in overrides if "=" not in each and not each.startswith("~")]
    if command not in POSITIONAL or not bare:
        return list(overrides)
    value = quoted(bare[0]) if len(bare) == 1 else f"[{','.join(map(quoted, bare))}]"
    return [*(each for each in overrides if each not in bare), f"{POSITIONAL[command]}={value}"]


def _unknown_option(option: str, following: Sequence[str], command: str) -> ConfigError:
    """Returns the error for an option such as `--epochs 5` of another tool, with the override that has its effect."""
    name, equals, value = option.partition("=")
    if name in VALUED:
        return ConfigError(f"{name} has no value: expected one after it. Add it, or leave the option out.")
    key = name.lstrip("-").replace("-", "_")
    key = ALIASES.get(key, key)
    known = key.partition(".")[0] in {item.name for item in fields(COMMANDS.get(command, COMMANDS["train"]))}
    value = value if equals else next((each for each in following[:1] if "=" not in each and each[0] != "-"), "VALUE")
    near = "" if known else close_to(name[2:], [each[2:] for each in FLAGS | VALUED if each.startswith("--")])
    remedy = f"Write {key}={value}." if known else near or "--help lists the keys."
    return ConfigError(f"{option} is not an option: expected KEY=VALUE, or an option of --hydra-help. {remedy}")


def _parsed(override: str, *, sweeps: bool) -> Override:
    """Parses an override. Text that Hydra would not parse is quoted, and `~/` is the home folder, as in a shell.

    Raises ConfigError, with the form that can be read, if the value could also be meant as a list or a mapping.
    """
    key, equals, value = override.partition("=")
    if not equals and not key.startswith("~"):
        raise ConfigError(
            f"'{override}' has no value: expected KEY=VALUE, without blanks around the equals sign. "
            "Write both, or --help for the keys."
        )
    if equals and not key:
        raise ConfigError(f"'{override}' has no key: expected KEY=VALUE. Write the key before the equals sign.")
    names_sweep = key in ("sweep", "sweep.resume", "sweep.join") and value.isalnum()
    if names_sweep or key in ("run_id", "runs", "diff"):  # Hydra would read an id such as 12e45678 as a number
        value = re.sub(r"(?<!['\"\w])\d[\de]+(?!['\"\w])", r"'\g<0>'", value)
    if key in ("filter", "note", "on_end") and not _WRITTEN.fullmatch(value):
        value = quoted(value)
    parts = value.split(",") if sweeps and not re.search(r"[\[\]{}()'\"$]", value) else [value]
    parts = [str(Path(part).expanduser()) if part.startswith("~/") else part for part in parts]
    found = _read(f"{key}={','.join(parts)}" if equals else override)
    if found is not None:
        return found
    text = f"{key}={','.join(part if _read(f'{key}={part}') else quoted(part) for part in parts)}"
    readable = _read(text)
    if readable is not None and all(parts) and not _SYNTAX.search("".join(parts)):
        return readable
    as_list = re.sub(r"=\((.*)\)$", r"=[\1]", override)
    meant, form = ("a list", as_list) if as_list != override and _read(as_list) else ("text", text)
    remedy = f"If it is {meant}, write {shlex.quote(form)}." if readable else "experiments help KEY describes a key."
    raise ConfigError(
        f"'{override}' cannot be read: expected KEY=VALUE, with closed lists, mappings and quotes. {remedy}"
    )


def _read(override: str) -> Override | None:
    """Parses an override. Returns None if that fails, or would lose a part of the value."""
    if _LOST.search(override) and override.partition("=")[2][:1] not in ("'", '"'):
        return None
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except OverrideParseException:
        return None


def _below_swept_groups(overrides: Sequence[Override]) -> list[str]:
    """Returns the overrides, with `KEY=choice(VALUE)` for a key of an option that only some of the jobs may select.

    Hydra composes overrides with a single value before the sweep, with the default options. The sweep treats a choice
    of one value as a value that all jobs share.
    """
    swept = {str(each.key_or_group) for each in overrides if each.is_sweep_override()}
    depending = set(GROUPS) if swept & set(PRESETS) else swept & set(GROUPS)
    texts = []
    for override in overrides:
        text, key = str(override.input_line), str(override.key_or_group)
        group, dot, _ = key.partition(".")
        if dot and group in depending and not override.is_sweep_override() and not override.is_delete():
            name, _, value = text.partition("=")
            # Hydra's choice() does not accept null.
            text = f"{name}=null,null" if override.value() is None else f"{name}=choice({value})"
        texts.append(text)
    return texts


def _refuse_sweeps(overrides: Sequence[Override], command: str) -> None:
    """Raises ConfigError for several values of a key, and for settings of a sweep."""
    run_each = "Add -m to run each of them, or write" if command == "config" else "Write"
    for override in overrides:
        key, _, value = str(override.input_line).partition("=")
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} has several values, but this command starts a single run: expected one value. "
                f"{run_each} {shlex.quote(f'{key}=[{value}]')} for a list, or "
                f"{shlex.quote(f'{key}={quoted(value)}')} for text."
            )
        if re.match(r"[+~]*(sweep\.|hydra[./](launcher|sweeper))", key):
            raise ConfigError(
                f"{override.input_line} belongs to a sweep, but -m is missing: expected a command that starts a sweep. "
                "Add -m, or leave it out."
            )
