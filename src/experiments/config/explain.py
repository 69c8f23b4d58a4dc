"""Explains errors of Hydra, OmegaConf and the file system in one line."""

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from experiments.config.aliases import ALIASES
from experiments.config.file_errors import explain_file
from experiments.config.reference import PRESETS, composed, options_of, search_path, split_config_dir
from experiments.config.registry import CONF, GROUPS
from experiments.errors import close_to, listed, near

UNWRITABLE = (PermissionError, NotADirectoryError, FileExistsError)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Error numbers of a disk that cannot be written; Python has no exception classes for them."""
EXPLAINED = (HydraException, OmegaConfBaseException, *UNWRITABLE)
_TRAILER = re.compile(r"(full_key|object_type|reference_type)[:=]|Set the environment variable|See https?://")
_PLUGINS = {"joblib": "joblib", "ray": "ray", "submitit_slurm": "submitit", "submitit_local": "submitit"}
"""Launchers, and the name of the Hydra plugin that provides them."""
_EXPECTED_BY_REASON = {
    "to Integer": "a whole number",
    "to Float": "a number",
    "not a valid bool": "true or false",
    "not Optional": "a value other than null",
    "ListConfig": "a list such as [1,2]",
    "is not a subclass of": "the keys below it one by one, which experiments help lists",
}
"""Pieces of OmegaConf's messages, and the values that were expected."""


def explained(error: Exception, config_name: str, overrides: Sequence[str] | None = None) -> str | None:
    """Returns the message for `error`, or None if it is not an error that a user can correct."""
    folder, typed = split_config_dir()
    in_file = explain_file(error, [*([] if folder is None else [folder]), Path(CONF)], overrides or typed)
    if in_file is not None:
        return in_file
    known = error if isinstance(error, EXPLAINED) else unwritable_output(error)
    return None if known is None else explain(known, config_name, overrides)


def explain(error: Exception, config_name: str, overrides: Sequence[str] | None = None) -> str:
    """Returns the message for `error`, with suggestions from the config `config_name`.

    `overrides` are those of the config in question, by default those of the command line.
    """
    if isinstance(error, OSError) and error.errno is not None:  # Hydra also raises OSErrors, without a number
        return (
            f"{error.filename or 'the output'}: {error.strerror}. Expected a file or folder this user can write. "
            "Set hydra.run.dir=FOLDER for the output, or HYDRA_FULL_ERROR=1 to see where this came from."
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_option(error.missing_cfg_file, error.options)
    if isinstance(error, OverrideParseException):  # of a YAML file; the command line has been parsed before
        return (
            f"'{error.override}' cannot be read: {one_line(error)}. Expected KEY=VALUE, quoted if it contains blanks."
        )
    unknown = re.search(r"Could not (?:override|delete)[^']*'([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and unknown:
        return _unknown_key(unknown[1].lstrip("~"), config_name, overrides)
    twice = re.match(r"Multiple values for ([\w/]+)\. To override a value use 'override", str(error))
    if twice:
        return (
            f"{twice[1]} is selected twice: expected one option. Write {twice[1]}=OPTION without a plus sign on the "
            f"command line, and - override /{twice[1]}: OPTION in a defaults list."
        )
    refused = re.match(r"Error merging override ([^=]+)=(.*)", str(error))
    if refused and error.__cause__ is not None:
        return _wrong_type(refused[1], refused[2], one_line(error.__cause__))
    return one_line(error)


def explain_value(error: Exception, override: str, config_name: str) -> str:
    """Returns the message for an error of the override KEY=VALUE of a composed config."""
    key, _, value = override.partition("=")
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(key, config_name)
    return _wrong_type(key, value, one_line(error))


def unwritable_output(error: Exception) -> OSError | None:
    """Returns the error that prevents Hydra from creating the output folder or its log file; None for other errors.

    Python's logging module wraps the error of the log file in a ValueError.
    """
    cause = error.__cause__ if isinstance(error, ValueError) else error
    if not isinstance(cause, OSError):
        return None
    return cause if isinstance(cause, UNWRITABLE) or cause.errno in DISK or _is_refused_folder(cause) else None


def _is_refused_folder(error: OSError) -> bool:
    """Returns True if Hydra could not create a folder in a pseudo file system such as /proc.

    There, creating a folder fails with "no such file or directory".
    """
    callers = [frame for frame in extract_tb(error.__traceback__) if frame.name not in ("mkdir", "makedirs")]
    by_hydra = any("hydra" in Path(frame.filename).parts for frame in callers[-1:])
    return isinstance(error, FileNotFoundError) and by_hydra


def one_line(error: BaseException) -> str:
    """Returns the message on one line, without the lines that OmegaConf and Hydra add, such as `full_key: ...`."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not _TRAILER.match(line))


def _wrong_type(key: str, value: str, reason: str) -> str:
    expected = next((text for sign, text in _EXPECTED_BY_REASON.items() if sign in reason), None)
    problem = f"expected {expected}, received {value!r}" if expected else reason.removesuffix(".")
    return f"{key}={value}: {problem}. Change {key}."


def _unknown_option(config: str, options: Sequence[str] | None) -> str:
    group, slash, option = config.partition("/") if config.partition("/")[0] in GROUPS else config.rpartition("/")
    if not slash:
        return f"--config-name={option}: there is no {option}.yaml. Add its folder by --config-dir, or leave it out."
    if group == "hydra/launcher" and option in _PLUGINS:
        return f"{group}={option} is not installed: expected its plugin. pip install hydra-{_PLUGINS[option]}-launcher"
    return f"{group}={option} is not an option. {near(option, options or options_of(group, split_config_dir()[0]))}"


def _unknown_key(typed: str, config_name: str, overrides: Sequence[str] | None = None) -> str:
    """Names the most similar key; if no key is similar, the keys of the same node."""
    cfg = _composed(config_name, overrides)
    keys = _keys(cfg)
    key = ALIASES.get(typed, ALIASES.get(typed.rpartition(".")[2], typed)) if typed not in keys else typed
    if key != typed and key in keys:
        return f"'{typed}' is not a key of this config. Did you mean '{key}'?"
    parent = key.rpartition(".")[0]
    if key in keys:
        return f"{key} takes its entries one by one. Write +{key}.NAME=VALUE for each."
    if parent in keys and OmegaConf.select(OmegaConf.create(cfg), parent) == {}:
        return f"{key} would be a new entry of {parent}. Write +{key}=VALUE."
    group, dot, _ = key.partition(".")
    options = [f"{group}={option}" for option in options_of(group, split_config_dir()[0])] if dot else []
    others = [option for option in options if key in _keys(_composed(config_name, overrides, option))]
    if others:
        return f"'{key}' is a key of {', '.join(others)}, which is not chosen here. Choose it, or leave the key out."
    key, parent = typed, typed.rpartition(".")[0]
    parent = parent if parent in keys else ""
    beside = [name for name in keys if name.rpartition(".")[0] == parent and name != "hydra"]
    near_names = [*keys, *PRESETS] if config_name == "config" else keys
    return f"'{key}' is not a key of this config. {close_to(key, near_names) or listed(beside)}"


def _composed(config_name: str, overrides: Sequence[str] | None, *instead: str) -> dict[str, Any]:
    """Composes the config with the options that `overrides` or the command line select, but without values.

    `instead` lists options that replace the selected ones.
    """
    folder, typed = split_config_dir()
    overrides = typed if overrides is None else overrides
    groups = {option.partition("=")[0] for option in instead}
    groups_here = "|".join((*GROUPS, *PRESETS))
    chosen = [text for text in overrides if re.fullmatch(rf"({groups_here})=[\w,\[\]]+|hydra\.searchpath=.+", text)]
    # A sweep may list several options of a group: the first one is composed.
    chosen = [re.sub(r"^(\w+=\w+)(,\w+)+$", r"\1", text) for text in chosen]
    chosen = [*(text for text in chosen if text.partition("=")[0] not in groups), *instead]
    try:
        cfg = composed(config_name, [*chosen, *search_path(folder)])
    except HydraException:
        cfg = composed(config_name)
    return cast(dict[str, Any], OmegaConf.to_container(cfg))


def _keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        keys += [f"{prefix}{key}", *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return keys
