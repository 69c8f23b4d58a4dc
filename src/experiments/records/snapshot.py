"""What a run keeps of itself to be built again: what was typed, the resolved config, and what its data looked like."""

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
from experiments.tracking.redaction import MASK, mask, mask_tree

CONFIG, OVERRIDES, DATA = "config.yaml", "overrides.yaml", "data.json"


def write_snapshot(folder: Path, cfg: DictConfig, spec: DataSpec, overrides: Sequence[str] = ()) -> None:
    """Writes `config.yaml` and `overrides.yaml`, secrets masked, and `data.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create([mask(override) for override in overrides]), folder / OVERRIDES)
    resolved = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.save(OmegaConf.create(resolved), folder / CONFIG)
    # Last and whole: it says that the others are there.
    write_atomically(folder / DATA, json.dumps(asdict(spec), ensure_ascii=False, indent=1))


def read_snapshot(folder: Path) -> tuple[DictConfig, DataSpec]:
    """Raises FileNotFoundError where `folder` is not that of a run."""
    stored = json.loads((folder / DATA).read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return DictConfig(OmegaConf.load(folder / CONFIG)), DataSpec(**fields)


def read_config(folder: Path) -> DictConfig | None:
    """As resolved then; None where the run ended before it was written."""
    return DictConfig(OmegaConf.load(folder / CONFIG)) if (folder / DATA).is_file() else None


def read_overrides(folder: Path) -> list[str]:
    """What was typed then, without what held a secret: that has to be typed again."""
    path = folder / OVERRIDES
    typed = [_of_version_0_1(str(override)) for override in OmegaConf.load(path)] if path.is_file() else []
    return [override for override in typed if override and MASK not in override]


def _of_version_0_1(override: str) -> str:
    """The override under today's names; empty for one that switches off what nothing switches on any more."""
    if re.fullmatch(r"~callbacks\.terminate_on_nan|callbacks\.terminate_on_nan=null", override):
        return ""
    return re.sub(r"^(\+{0,2}|~)logging\.tracker\.", r"\1logging.", override)


def typed_overrides() -> list[str]:
    """What was typed to compose the config; nothing where it came another way."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
