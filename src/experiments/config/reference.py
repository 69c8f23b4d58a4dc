"""Descriptions of configuration keys, for `experiments help KEY`, `--help` and the reference in the documentation."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from inspect import getdoc
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from experiments.config.fields import DESCRIPTION, RULE
from experiments.config.registry import COMMANDS, CONF, GROUPS
from experiments.errors import ConfigError

REQUIRED = "required"
PRESETS = {
    "experiment": "Complete settings, applied after the options of the other groups.",
    "debug": "Settings for finding errors, applied after all other options.",
}
_NO_EFFECT = {
    "evaluate": r"logging\.(?!tracking_uri|experiment_name)"
    r"|data\.(shuffle|sampling|class_weight|image_size|cache_required)$|sweep\.|checkpoint\.",
    "predict": r"logging\.(?!tracking_uri|experiment_name)|model\.(freeze|dropout|batch_norm_momentum|cache_features)$"
    r"|sweep\.|checkpoint\.",
    "compare": r"logging\.(?!tracking_uri|experiment_name)|sweep\.|checkpoint\.",
    "inspect": r"data\.(batch_size|shuffle|sampling|class_weight|num_parallel_calls|prefetch|antialias|cache"
    r"|cache_required|on_corrupt|allow_leakage|rescan)$",
    "doctor": r"logging\.(?!tracking_uri)",
}
"""Keys that a command accepts but ignores; they come from a config group of `train`."""


@dataclass
class Key:
    """A key of the config.

    `defaults` maps each default, as YAML text, to the options that have it. A key that belongs to no group has one
    default and no options. `type`, `expected` and `description` are empty for a key without a schema.
    """

    name: str
    type: str
    expected: str
    description: str
    defaults: dict[str, list[str]]

    @property
    def options(self) -> list[str]:
        return [option for options in self.defaults.values() for option in options]

    @property
    def default(self) -> str:
        """The default, or each default with its options if they differ."""
        if len(self.defaults) == 1:
            return next(iter(self.defaults))
        return ", ".join(f"{text} ({', '.join(options)})" for text, options in self.defaults.items())


@dataclass
class Section:
    """The keys of a command, of a node of `train`'s config, or of a config group.

    `options` maps each option of a group to its description; it is empty for all other sections.
    """

    title: str
    description: str
    keys: list[Key]
    options: dict[str, str] = field(default_factory=dict)


def sections(*, groups: bool = True) -> Iterator[Section]:
    """Yields the sections of `train`, of the config groups unless `groups` is False, and of the other commands."""
    yield from train_sections()
    if groups:
        yield from map(group_section, GROUPS)
    yield from (command_section(command) for command in COMMANDS if command != "train")


def train_sections() -> Iterator[Section]:
    """Yields the keys of `train` that belong to no group: first those at the top, then a section for each node."""
    cfg = composed("config")
    schema = OmegaConf.get_type(cfg)
    nodes = [name for name in map(str, cfg) if name not in (*GROUPS, "hydra") and isinstance(cfg[name], DictConfig)]
    plain = [key for key in keys(cfg) if key.name.partition(".")[0] not in (*GROUPS, *nodes)]
    yield Section("train", _description(schema), plain)
    for name in nodes:
        yield Section(name, _description(OmegaConf.get_type(cfg[name])), list(keys(cfg[name], f"{name}.")))


def group_section(group: str, config_dir: Path | None = None) -> Section:
    """Returns the section of a config group, with the keys of all its options.

    `config_dir` is a folder with user-defined options, which are included.
    """
    found: dict[str, Key] = {}
    options = {}
    for option in options_of(group, config_dir):
        node = _composed_option(group, option, config_dir)
        options[option] = _option_description(node)
        for key in keys(node, f"{group}.", option):
            known = found.setdefault(key.name, key)
            if known is not key:
                known.defaults.setdefault(next(iter(key.defaults)), []).append(option)
    description = next(item.metadata[DESCRIPTION] for item in fields(COMMANDS["train"]) if item.name == group)
    return Section(group, description, list(found.values()), options)


def preset_section(group: str, config_dir: Path | None = None) -> Section:
    """Returns the options of `experiment` or `debug`, which set keys of other groups and have none of their own."""
    options = {}
    folders = [Path(CONF), *([] if config_dir is None else [config_dir])]
    for file in sorted(file for folder in folders for file in (folder / group).glob("*.yaml")):
        comments = re.findall(r"^# (?!@)(.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
        options[file.stem] = comments[0] if comments else ""
    return Section(group, PRESETS[group], [], options)


def command_section(command: str, cfg: DictConfig | None = None) -> Section:
    """Returns the section of a command that is not `train`: the keys of `cfg`, or of its default config.

    `cfg` must contain the node `hydra`, from which the chosen options are read. Keys without an effect are left out.
    """
    cfg = composed(command) if cfg is None else cfg
    descriptions = {item.name: item.metadata[DESCRIPTION] for item in fields(COMMANDS[command])}
    hidden = re.compile(rf"{_NO_EFFECT[command]}|.*_target_$")
    listed: list[Key] = []
    for key in keys(cfg):
        group = key.name.partition(".")[0]
        if group in GROUPS and group not in [known.name for known in listed]:
            choice = str(cfg.hydra.runtime.choices[group]).replace("None", "null")
            listed.append(Key(group, "option", "", descriptions[group], {choice: []}))
        if key.name not in GROUPS and not hidden.match(key.name):
            listed.append(key)
    return Section(command, _description(COMMANDS[command]), listed)


def keys(node: DictConfig, prefix: str = "", option: str | None = None) -> Iterator[Key]:
    """Yields the keys of a composed node; nested nodes contribute their own keys."""
    schema = OmegaConf.get_type(node)
    typed = is_dataclass(schema)
    metadata = {item.name: item.metadata for item in fields(schema)} if typed else {}  # type: ignore[arg-type]
    types = get_type_hints(schema) if typed else {}
    for name in map(str, node):
        if name == "hydra":
            continue
        child = node._get_node(name)
        described: Mapping[str, Any] = metadata.get(name, {})
        # A mapping that a schema declares as one value, such as `logging.tags`, is a key; other mappings contain keys.
        if isinstance(child, DictConfig) and child and (is_dataclass(OmegaConf.get_type(child)) or not described):
            yield from keys(child, f"{prefix}{name}.", option)
            continue
        rule = described.get(RULE)
        yield Key(
            name=f"{prefix}{name}",
            type=_type_text(types[name]) if name in types else "",
            expected="" if rule is None else rule.expected,
            description=described.get(DESCRIPTION, ""),
            defaults={_default_text(node, name): [] if option is None else [option]},
        )


def split_config_dir(arguments: Sequence[str] | None = None) -> tuple[Path | None, list[str]]:
    """Returns the folder of user-defined options and the other arguments, by default those of the command line."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", nargs="?", type=Path)
    found, others = parser.parse_known_args(arguments)
    return found.config_dir, others


def composed(config_name: str, overrides: list[str] | None = None) -> DictConfig:
    """Composes a command's config, or an option of a group by itself, with the node `hydra`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(config_name, overrides, return_hydra_config=True)


def _composed_option(group: str, option: str, config_dir: Path | None) -> DictConfig:
    if Path(CONF, group, f"{option}.yaml").exists():
        cfg = composed(f"{group}/{option}")
    else:  # Hydra finds a config by its name only in the main folder
        cfg = composed("config", [f"{group}={quoted(option)}", *search_path(config_dir)])
    # An option without keys, such as `augment=none`, leaves no node.
    return cfg.get(group) or OmegaConf.create()


def search_path(config_dir: Path | None) -> list[str]:
    if config_dir is None:
        return []
    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder: expected one with YAML files. Change it.")
    return [f"hydra.searchpath=[{quoted(f'file://{config_dir.resolve()}')}]"]


def quoted(text: str) -> str:
    """Quotes a value for Hydra's grammar of overrides."""
    return str(QuotedString(text, Quote.double).with_quotes())


def options_of(group: str, config_dir: Path | None) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, ObjectType.CONFIG, "config", search_path(config_dir))


def _option_description(node: DictConfig) -> str:
    """Describes an option by its schema; an option that combines entries is described by all of theirs."""
    schema = OmegaConf.get_type(node)
    if is_dataclass(schema):
        return _description(schema)
    return " ".join(_option_description(child) for child in node.values() if isinstance(child, DictConfig))


def _description(schema: Any) -> str:
    text = " ".join((getdoc(schema) or "").split())
    # A dataclass without a docstring has a generated one, its signature.
    return "" if text.startswith(f"{schema.__name__}(") else text


def commands_of(key: str) -> list[str]:
    """Returns the commands in which the key of a config group has an effect."""
    group = key.partition(".")[0]
    with_group = (command for command, schema in COMMANDS.items() if group in (item.name for item in fields(schema)))
    return [name for name in with_group if name == "train" or not re.match(_NO_EFFECT[name], key)]


def _type_text(annotation: Any) -> str:
    """Names a type as in `int`, `list[int]` or `float or null`."""
    if get_origin(annotation) is None:
        return "any" if annotation is Any else "null" if annotation is NoneType else annotation.__name__
    if get_origin(annotation) in (list, dict):
        return f"{get_origin(annotation).__name__}[{', '.join(map(_type_text, get_args(annotation)))}]"
    return " or ".join(map(_type_text, get_args(annotation)))


def _default_text(node: DictConfig, name: str) -> str:
    """The value as it is written in YAML; interpolations are not resolved, as their values may be secrets."""
    if OmegaConf.is_missing(node, name):
        return REQUIRED
    value = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))[name]
    return value if isinstance(value, str) else json.dumps(value)
