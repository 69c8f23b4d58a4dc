"""What a run keeps of itself to be built again: the resolved config and what its data looked like."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.data.base import DataSpec
from experiments.masking import mask_tree


def write_snapshot(folder: Path, cfg: DictConfig, spec: DataSpec) -> None:
    """Writes `config.yaml`, secrets masked, and `data.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    resolved = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.save(OmegaConf.create(resolved), folder / "config.yaml")
    (folder / "data.json").write_text(json.dumps(asdict(spec), ensure_ascii=False, indent=1), encoding="utf-8")


def read_snapshot(folder: Path) -> tuple[DictConfig, DataSpec]:
    """Raises FileNotFoundError where `folder` is not that of a run."""
    stored = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return DictConfig(OmegaConf.load(folder / "config.yaml")), DataSpec(**fields)
