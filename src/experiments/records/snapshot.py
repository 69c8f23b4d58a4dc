"""Snapshot of a run for building it again: command-line overrides, resolved config and data spec."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.data.base import DataSpec
from experiments.errors import reading
from experiments.files import write_atomically
from experiments.records.description import choices
from experiments.records.trust import read_record
from experiments.tracking.redaction import MASK, mask, mask_override, mask_tree

CONFIG, OVERRIDES, CHOICES, DATA = "config.yaml", "overrides.yaml", "choices.yaml", "data.json"


def write_snapshot(folder: Path, cfg: DictConfig, spec: DataSpec, overrides: Sequence[str] = ()) -> None:
    """Writes `config.yaml`, `overrides.yaml` and `choices.yaml`, secrets masked, and `data.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    masked = [mask_override(override) for override in overrides]
    write_atomically(folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(masked)), private=True)
    write_atomically(folder / CHOICES, OmegaConf.to_yaml(OmegaConf.create(mask_tree(choices(cfg)))), private=True)
    resolved = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(resolved)), private=True)
    # Written last and atomically: this file marks the snapshot as complete.
    described = asdict(spec) | {"source": mask(spec.source)}
    write_atomically(folder / DATA, json.dumps(described, ensure_ascii=False, indent=1), private=True)


def read_snapshot(folder: Path, owner: str) -> tuple[DictConfig, DataSpec]:
    """Returns config and data spec of the run `owner`. Raises TrackingError if a file is missing or wrong."""
    stored = read_record(folder / DATA, owner)
    with reading(f"config/{DATA} of {owner}"):
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in stored.items()}
        # Specs of 0.2 and earlier do not contain the version of the split rules, which was 1.
        spec = DataSpec(**{"split_rules": 1, **fields})
        # A model of any other size could fill the memory.
        if len(spec.class_names) != spec.num_classes or not 0 < math.prod(spec.input_shape) <= 1 << 30:
            raise ValueError("its classes or its input_shape are out of range")
    return read_config(folder, owner), spec


def read_config(folder: Path, owner: str) -> DictConfig:
    """Returns the resolved config of the run `owner`. Raises TrackingError if it is missing or wrong."""
    tree = read_record(folder / CONFIG, owner)
    with reading(f"config/{CONFIG} of {owner}"):
        if not isinstance(tree, dict) or "${" in json.dumps(tree):
            raise ValueError("it is not a mapping, or has an interpolation, which is not resolved in a stored config")
        return OmegaConf.create(tree)


def read_overrides(folder: Path, owner: str) -> list[str]:
    """Returns the overrides of the run's first command. Those with a secret are left out and must be typed again."""
    stored = read_record(folder / OVERRIDES, owner)
    with reading(f"config/{OVERRIDES} of {owner}"):
        typed = [_from_version_0_1(override) for override in stored]
        return [override for override in typed if override and MASK not in override]


def _from_version_0_1(override: str) -> str:
    """Returns the override with current key names; empty if it disables a callback that no longer exists."""
    if re.fullmatch(r"~callbacks\.terminate_on_nan|callbacks\.terminate_on_nan=null", override):
        return ""
    return re.sub(r"^(\+{0,2}|~)logging\.tracker\.", r"\1logging.", override)
