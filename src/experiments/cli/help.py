"""Text of `experiments help`, and of the keys in `--help`."""

import textwrap
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from experiments.config.aliases import ALIASES
from experiments.config.reference import (
    PRESETS,
    REQUIRED,
    Key,
    Section,
    command_section,
    commands_of,
    group_section,
    preset_section,
    sections,
    split_config_dir,
)
from experiments.config.registry import COMMANDS, GROUPS, about
from experiments.errors import ConfigError, close_to, listed

WIDTH = 80


def register_help() -> None:
    """Makes `${experiments.about:COMMAND}` and `${experiments.keys:COMMAND}` available to the help in `conf/`."""
    OmegaConf.register_new_resolver("experiments.about", about, replace=True)
    OmegaConf.register_new_resolver("experiments.keys", _keys_of_command, replace=True)


def _keys_of_command(command: str, *, _root_: DictConfig) -> str:
    text = "\n".join(map(_summary, command_section(command, _root_).keys))
    return text.replace("$", "$$")  # Hydra substitutes the result in a string.Template


def help_text(arguments: Sequence[str]) -> str:
    """Describes a key, or all keys of a config group, of a node such as `sweep`, or of an entry of a named dict.

    Raises ConfigError if there is no such name.
    """
    folder, names = split_config_dir(arguments)
    if len(names) != 1:
        raise ConfigError(f"help describes one key: received {' '.join(names) or 'none'}. Type experiments help KEY.")
    name = names[0].partition("=")[0].rstrip(".")
    group = name.partition(".")[0]
    if group in PRESETS:
        searched = [preset_section(group, folder)]
    elif group in GROUPS:
        searched = [group_section(group, folder)]
    else:
        searched = list(sections(groups=False))
    described = [_section_text(section) for section in searched if section.title == name]
    described += _key_texts(name, searched)
    below = [key for section in searched for key in section.keys if key.name.startswith(f"{name}.")]
    if not described and below:
        described = [_section_text(Section(name, searched[0].options.get(name.partition(".")[2], ""), below))]
    if not described:
        raise ConfigError(f"'{name}' is not a key or a group of keys. {_nearest(name, searched)}")
    return "\n\n".join(described)


def _key_texts(name: str, searched: Sequence[Section]) -> list[str]:
    """Describes the key in each section that has it; commands that share a description share a text."""
    commands: dict[str, list[str]] = {}
    for section in searched:
        for key in section.keys:
            if key.name == name:
                names = [section.title] if section.title in COMMANDS else commands_of(name)
                commands.setdefault(_key_text(key, name.partition(".")[0]), []).extend(names)
    return [f"{text}\n  commands  {', '.join(names)}" for text, names in commands.items()]


def _nearest(name: str, searched: Sequence[Section]) -> str:
    """Suggests a key that ends in `name`, or a similar one; lists the first parts of all keys if there is none."""
    known = {key.name for section in searched for key in section.keys} | {*GROUPS, *PRESETS}
    every = known if "." in name else known | {key.name for section in sections() for key in section.keys}
    ending = sorted(key for key in every if key.endswith(f".{name}") or key == ALIASES.get(name))
    if ending:
        return f"Did you mean {' or '.join(repr(key) for key in ending)}?"
    return close_to(name, known) or listed(sorted({key.partition(".")[0] for key in known}))


def _section_text(section: Section) -> str:
    width = max(map(len, section.options), default=0)
    options = [
        textwrap.fill(f"  {section.title}={name:<{width}}  {text}", WIDTH, subsequent_indent=" " * 6)
        for name, text in section.options.items()
    ]
    keys = [_summary(key) for key in section.keys if not key.name.endswith("_target_")]
    title = textwrap.wrap(f"{section.title}: {section.description}", WIDTH) if section.description else []
    return "\n".join([*title, *options, *([""] if options and keys else []), *keys])


def _summary(key: Key) -> str:
    default = "VALUE" if key.default == REQUIRED else key.default
    named = textwrap.fill(f"  {key.name}={default}", WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)
    return f"{named}\n{_filled(key.description, 6)}"


def _filled(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _key_text(key: Key, group: str) -> str:
    options = ", ".join(f"{group}={option}" for option in key.options)
    facts = {"type": key.type, "expected": key.expected, "default": key.default, "options": options}
    shown = [
        textwrap.fill(f"  {name:<8}  {text}", WIDTH, subsequent_indent=" " * 12) for name, text in facts.items() if text
    ]
    return "\n".join([key.name, _filled(key.description or "No description.", 2), *shown])
