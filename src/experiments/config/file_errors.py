"""Explains errors in the YAML files of a config: file, line, column, and the expected content."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from experiments.config.aliases import ALIASES
from experiments.errors import near

_COMPOSING = re.compile(r"In '([^']+)': (?:\w+ raised while composing config:)?\s*(.*)", re.DOTALL)
_UNREADABLE = (yaml.YAMLError, UnicodeDecodeError, GrammarParseError)


def explain_file(error: Exception, folders: Sequence[Path], overrides: Sequence[str]) -> str | None:
    """Returns the message for an error in a YAML file of one of the `folders`, or None for other errors.

    Several files may be unreadable: those that the `overrides` select come first.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(error, _UNREADABLE) or isinstance(cause, GrammarParseError):
        paths = [path for folder in folders for path in sorted(folder.glob("**/*.yaml"))]
        paths.sort(key=lambda path: f"{path.parent.name}={path.stem}" not in overrides)
        return next(_unreadable(paths), None)
    composing = _COMPOSING.match(str(error))
    path = _path(composing[1], folders) if composing else None
    if composing and path and not isinstance(error, MissingConfigException):
        return _wrong_content(path, composing[2].splitlines()[0], cause)
    wrong_defaults = re.match(r"Invalid defaults list in '([^']+)', (.*)", str(error))
    path = _path(wrong_defaults[1], folders) if wrong_defaults else None
    if wrong_defaults and path:
        return f"{_at(path, 'defaults')}: {wrong_defaults[2]}. Write each entry as - GROUP: OPTION."
    return None


def _path(option: str, folders: Sequence[Path]) -> Path | None:
    return next((path for path in (folder / f"{option}.yaml" for folder in folders) if path.is_file()), None)


def _unreadable(paths: Sequence[Path]) -> Iterator[str]:
    """Yields a message for each YAML file that cannot be read."""
    for path in paths:
        try:
            OmegaConf.load(path)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            yield f"{path}:{mark.line + 1}:{mark.column + 1}: {error.problem}. Expected YAML. Correct the file."
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            yield f"{path} is not text in UTF-8: {reason}. Save the file as UTF-8."
        except GrammarParseError as error:
            reason = str(error).splitlines()[0]
            yield f"{_at(path, error.full_key)}: {reason}. Expected ${{KEY}}, closed by a brace. Correct the file."


def _wrong_content(path: Path, reason: str, cause: BaseException | None) -> str:
    key = str(cause.full_key) if isinstance(cause, OmegaConfBaseException) else ""
    unknown = re.match(r"Key '([^']+)' not in '(\w+)'", reason)
    if re.search(r"'[^']+@([^'.]+)\.[^']+'", reason) or (unknown and unknown[1] == path.parent.name):
        return (
            f"{path}:1:1: expected '# @package _global_' in the first line, as the file changes keys of other groups."
        )
    if "Could not override" in reason:
        return f"{_at(path, 'defaults')}: {reason} Write a slash before the group, as in - override /model: mlp."
    if unknown and isinstance(cause, OmegaConfBaseException):
        names = getattr(cause.object_type, "__dataclass_fields__", ())
        name = ALIASES.get(unknown[1], unknown[1]).rpartition(".")[2]
        known = f"Did you mean '{name}'?" if name in names else near(unknown[1], names)
        return f"{_at(path, key)}: '{key}' is not a key of this config. {known}"
    return f"{_at(path, key)}: {reason}. Change {key}." if key else f"{path}: {reason}"


def _at(path: Path, key: str | None) -> str:
    """Returns path, line and column of a dotted key in a file, as far as its last parts occur there."""
    node, mark = yaml.compose(path.read_text(encoding="utf-8")), None
    for part in (key or "").split("."):
        for name, value in getattr(node, "value", ()) if isinstance(getattr(node, "value", None), list) else ():
            if getattr(name, "value", None) == part:
                node, mark = value, name.start_mark
                break
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
