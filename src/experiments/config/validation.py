"""Checks a composed config for errors that types cannot find: unknown keys, ranges and combinations."""

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.fields import RULE
from experiments.config.registry import COMBINED, GROUPS
from experiments.errors import ConfigError, near


def check(cfg: DictConfig) -> None:
    """Raises ConfigError for the first value or combination that cannot be trained; imports nothing heavy."""
    _check_targets(cfg)
    check_values(cfg)
    if cfg.logging.tracking_uri is not None and "MLFLOW_RUN_ID" in os.environ:
        raise ConfigError("MLFLOW_RUN_ID is set: expected resume=ID to continue a run. Unset it.")
    for conflict in _conflicts(cfg):
        raise ConfigError(conflict)


def check_values(cfg: DictConfig) -> None:
    """Raises ConfigError for the first missing value, unknown key or value out of range, for any command."""
    _check_references(cfg)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} has no value: this option needs one. Add {missing[0]}=VALUE.")
    for path, node, schema in _typed_nodes(cfg, ""):
        _check_keys(path, node, schema)
        for item in fields(schema):
            rule, value = item.metadata.get(RULE), node[item.name]
            if rule is None or value is None or _repeats_another_key(node, item.name) or rule.accepts(value):
                continue
            key = f"{path}{item.name}"
            raise ConfigError(f"{key}={value} is out of range: expected {rule.expected}. Change {key}.")


def _check_references(cfg: DictConfig) -> None:
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key} refers to a key that does not exist: {str(error.msg).splitlines()[0]}. "
            f"Expected ${{key}} of this config or ${{oc.env:NAME}}. Change {error.full_key}."
        ) from error


def _typed_nodes(node: DictConfig, path: str) -> Iterator[tuple[str, DictConfig, Any]]:
    schema = OmegaConf.get_type(node)
    if schema is not None and is_dataclass(schema):
        yield path, node, schema
    for key, child in node.items():
        if isinstance(child, DictConfig):
            yield from _typed_nodes(child, f"{path}{key!s}.")


def _check_keys(path: str, node: DictConfig, schema: Any) -> None:
    known = {item.name for item in fields(schema)}
    for key in map(str, node):
        if key not in known:
            raise ConfigError(f"'{path}{key}' is not a key of this config. {near(key, known)}")
    for key in known - set(map(str, node)):
        raise ConfigError(f"{path}{key} was deleted, but this config needs it. Leave out ~{path}{key}.")


def _repeats_another_key(node: DictConfig, name: str) -> bool:
    """Returns True for `${monitor.mode}`, whose own key is checked, but not for `${oc.env:NAME}`."""
    if not OmegaConf.is_interpolation(node, name):
        return False
    written = OmegaConf.to_container(node, resolve=False)
    return ":" not in str(written[name])  # type: ignore[index,call-overload]


def _check_targets(cfg: DictConfig) -> None:
    """Raises ConfigError if an option or an entry is not a mapping with a target, as with an empty YAML file."""
    for group in GROUPS:
        if group not in cfg:
            raise ConfigError(f"this config has no {group}: expected all groups. Add - config to its defaults list.")
        nodes = {group: cfg[group]}
        if group in COMBINED:
            nodes = {f"{group}.{name}": node for name, node in cfg[group].items() if node is not None}
        for key, node in nodes.items():
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise ConfigError(
                    f"{key} has no _target_, so nothing can be built from it: expected a mapping of keys and values. "
                    f"Add _target_ to the YAML file, or choose {group}={key.partition('.')[2] or 'OPTION'}."
                )
    if cfg.resume == "":
        raise ConfigError("resume= is empty: expected last or the id of a run. Add it, or leave resume out.")


def _conflicts(cfg: DictConfig) -> Iterator[str]:
    """Yields a message for each combination of values that cannot be trained."""
    targets = {str(node.get("_target_")) for node in cfg.callbacks.values() if node is not None}
    scheduled = not str(cfg.schedule.get("_target_")).endswith(".constant") or cfg.schedule.get("warmup_steps")
    # Keras raises a TypeError for these, but only during training.
    if "keras.callbacks.ReduceLROnPlateau" in targets and scheduled:
        yield (
            "callbacks=reduce_on_plateau changes the learning rate itself and cannot be combined with a schedule: "
            "expected schedule=constant schedule.warmup_steps=0. Drop the callback or the schedule."
        )
    steps = cfg.optimizer.get("gradient_accumulation_steps")
    # A mirrored strategy cannot reduce gradients in the branch that Keras uses.
    if cfg.runtime.strategy == "mirrored" and steps is not None:
        yield (
            f"optimizer.gradient_accumulation_steps={steps} does not work with runtime.strategy=mirrored in Keras: "
            "expected one of the two. Set optimizer.gradient_accumulation_steps=null and a larger data.batch_size, "
            "or runtime.strategy=none."
        )
    # Some operations have no deterministic form, which XLA reports only when it runs.
    if cfg.loop.get("jit_compile") and cfg.runtime.deterministic is not False:
        yield (
            f"loop.jit_compile=true needs runtime.deterministic=false, received {cfg.runtime.deterministic}: XLA has "
            "no repeatable form of some operations. Set runtime.deterministic=false or loop.jit_compile=false."
        )
    names = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if cfg.optimizer.get(name) is not None]
    if len(names) > 1:
        yield (
            f"{' and '.join(f'optimizer.{name}' for name in names)} are both set: Keras clips gradients in one way "
            f"only. Set optimizer.{names[0]}=null or optimizer.{names[1]}=null."
        )
