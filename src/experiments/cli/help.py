"""Text of `experiments help`, and of the keys in `--help`."""

import textwrap
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.config.reference import REQUIRED, Key, Section, command_section, group_section, sections
from experiments.config.registry import COMMANDS, GROUPS
from experiments.errors import ConfigError, close_to, listed

WIDTH = 96


def register_help() -> None:
    """Makes `${experiments.keys:COMMAND}` available to the help templates in `conf/`."""
    OmegaConf.register_new_resolver("experiments.keys", _keys_of_command, replace=True)


def _keys_of_command(command: str, *, _root_: DictConfig) -> str:
    text = "\n".join(map(_summary, command_section(command, _root_).keys))
    return text.replace("$", "$$")  # Hydra substitutes the result in a string.Template


def help_text(arguments: Sequence[str]) -> str:
    """Describes a key, or all keys of a config group or of a node such as `sweep`.

    Raises ConfigError if there is no such name.
    """
    parser = ArgumentParser("experiments help", add_help=False)
    parser.add_argument("name", metavar="KEY")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", type=Path)
    options = parser.parse_args(arguments)
    name = options.name.rstrip("=.")
    if (group := name.partition(".")[0]) in GROUPS:
        searched = [group_section(group, options.config_dir)]
    else:
        searched = list(sections(groups=False))
    described = [_section_text(section) for section in searched if section.title == name]
    commands: dict[str, list[str]] = {}
    for section in searched:
        for key in section.keys:
            if key.name == name:
                command = section.title if section.title in COMMANDS else "train"
                commands.setdefault(_key_text(key, group), []).append(command)
    described += [f"{text}\n  commands  {', '.join(names)}" for text, names in commands.items()]
    if not described:
        known = {key.name for section in searched for key in section.keys} | {*GROUPS}
        nearest = close_to(name, known) or listed(sorted({key.partition(".")[0] for key in known}))
        raise ConfigError(f"'{name}' is not a key or a group of keys. {nearest}")
    return "\n\n".join(described)


def _section_text(section: Section) -> str:
    width = max(map(len, section.options), default=0)
    options = [
        textwrap.fill(f"  {section.title}={name:<{width}}  {text}", WIDTH, subsequent_indent=" " * 6)
        for name, text in section.options.items()
    ]
    keys = [_summary(key) for key in section.keys if not key.name.endswith("_target_")]
    return "\n".join([f"{section.title}: {section.description}", *options, "", *keys])


def _summary(key: Key) -> str:
    return f"  {key.name}={'VALUE' if key.default == REQUIRED else key.default}\n{_filled(key.description, 6)}"


def _filled(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _key_text(key: Key, group: str) -> str:
    options = ", ".join(f"{group}={option}" for option in key.options)
    facts = {"type": key.type, "expected": key.expected, "default": key.default, "options": options}
    shown = [
        textwrap.fill(f"  {name:<8}  {text}", WIDTH, subsequent_indent=" " * 12) for name, text in facts.items() if text
    ]
    return "\n".join([key.name, _filled(key.description or "No description.", 2), *shown])
