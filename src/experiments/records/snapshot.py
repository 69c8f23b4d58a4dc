"""Snapshot of a run for building it again: command-line overrides, resolved config and data spec."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.data.base import DataSpec
from experiments.files import write_atomically
from experiments.tracking.redaction import MASK, mask, mask_override, mask_tree

CONFIG, OVERRIDES, DATA = "config.yaml", "overrides.yaml", "data.json"


def write_snapshot(folder: Path, cfg: DictConfig, spec: DataSpec, overrides: Sequence[str] = ()) -> None:
    """Writes `config.yaml` and `overrides.yaml`, secrets masked, and `data.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    masked = [mask_override(override) for override in overrides]
    write_atomically(folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(masked)), private=True)
    resolved = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(resolved)), private=True)
    # Written last and atomically: this file marks the snapshot as complete.
    described = asdict(spec) | {"source": mask(spec.source)}
    write_atomically(folder / DATA, json.dumps(described, ensure_ascii=False, indent=1), private=True)


def read_snapshot(folder: Path) -> tuple[DictConfig, DataSpec]:
    """Returns config and data spec. Raises FileNotFoundError if `folder` has no snapshot."""
    stored = json.loads((folder / DATA).read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return DictConfig(OmegaConf.load(folder / CONFIG)), DataSpec(**fields)


def read_config(folder: Path) -> DictConfig | None:
    """Returns the resolved config, or None if the run ended before the snapshot was complete."""
    return DictConfig(OmegaConf.load(folder / CONFIG)) if (folder / DATA).is_file() else None


def read_overrides(folder: Path) -> list[str]:
    """Returns the overrides of the run's first command. Those with a secret are left out and must be typed again."""
    path = folder / OVERRIDES
    stored = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None  # interpolations stay as text
    typed = [_from_version_0_1(str(override)) for override in stored or ()]
    return [override for override in typed if override and MASK not in override]


def _from_version_0_1(override: str) -> str:
    """Returns the override with current key names; empty if it disables a callback that no longer exists."""
    if re.fullmatch(r"~callbacks\.terminate_on_nan|callbacks\.terminate_on_nan=null", override):
        return ""
    return re.sub(r"^(\+{0,2}|~)logging\.tracker\.", r"\1logging.", override)


def typed_overrides() -> list[str]:
    """Returns the overrides of this command as typed, or [] if the config was not composed by a command."""
    # A resumed run reads `${oc.env:NAME}` again, so it is not resolved.
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None
    return list(map(str, typed or ()))
