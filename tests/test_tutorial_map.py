"""Tutorial map: each row composes, its names are in the named file, and its overrides train."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments.config import check, check_values, register
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.runs.run import run

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "tutorial-map.md").read_text(encoding="utf-8")
Overrides = dict[str, str]
"""Key -> value."""


class Row(NamedTuple):
    tutorial: str
    command: str
    file: Path
    names: list[str]

    @property
    def trains(self) -> bool:
        return not self.command.startswith(("experiments ", "make "))

    @property
    def overrides(self) -> Overrides:
        return dict(word.split("=", 1) for word in self.command.split() if "=" in word)


def _rows() -> Iterator[Row]:
    for line in MAP.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[2].startswith("["):
            link = re.search(r"\((\S+?)\)", cells[2])
            assert link, line
            names = re.findall(r"`([^`]+)`", cells[2][link.end() :])
            yield Row(cells[0], cells[1].strip("`"), (ROOT / "docs" / link[1]).resolve(), names)


ROWS = list(_rows())
TRAINING = [row for row in ROWS if row.trains]


def _name(row: Row) -> str:
    return row.tutorial


def test_each_row_is_parsed() -> None:
    lines = [line for line in MAP.splitlines() if line.startswith("|") and "|---" not in line]
    titles = [line for line in lines if line.startswith(("| In the", "| **"))]
    assert len(ROWS) == len(lines) - len(titles)


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_file_contains_the_names(row: Row) -> None:
    text = row.file.read_text(encoding="utf-8")
    assert row.names
    assert [name for name in row.names if name not in text] == []


FACES = {"data.path": "FILES/faces", "data.image_size": "[32,32]"}
DRAWN = {**FACES, "data.num_examples": "120", "data.draw_size": "32"}
NEEDED = {
    "data=npz": {"data.path": "FILES/mnist.npz"},
    "data=mnist": {"data.path": "FILES/mnist.npz"},
    "data=image_folder": FACES,
    "data=cats_dogs": FACES,
    "data=cats_dogs_synthetic": DRAWN,
    "model=mobilenetv2": {"model.weights": "null", "model.alpha": "0.35", "data": "cats_dogs", **FACES},
    "model=application": {"model.weights": "null", "model.alpha": "0.25", "data": "cats_dogs_synthetic", **DRAWN},
}
"""Overrides of a row that stand for files of the user or a download -> overrides that replace them here."""
SMALL = {
    "model": "mlp",
    "epochs": "1",
    "data.limit": "16",
    "data.batch_size": "8",
    "logging": "none",
    "logging.log_model": "false",
    "logging.log_figures": "false",
    "progress": "none",
    "tensorboard.graph": "false",
    "tensorboard.images": "0",
}
"""Overrides of each training, unless its rows contain the key."""


def _completed(overrides: Overrides) -> Overrides:
    completed = dict(overrides)
    for choice in (f"{key}={value}" for key, value in overrides.items()):
        completed |= NEEDED.get(choice, {})
    return completed


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


def _arguments(overrides: Overrides) -> list[str]:
    return [f"{key}={value}" for key, value in overrides.items()]


@pytest.mark.parametrize("row", TRAINING, ids=_name)
def test_overrides_compose(row: Row, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(*_arguments({**_completed(row.overrides), "logging": "none"}))
    check(cfg)
    assert OmegaConf.missing_keys(cfg) == set()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.trains], ids=_name)
def test_command_exists(row: Row) -> None:
    command = re.match(r"experiments (\w+)", row.command)
    if command:
        with initialize_config_dir(CONF, version_base="1.3"):
            check_values(compose(command[1], _arguments({**row.overrides, "logging": "none"})))
    else:
        assert f"\n{row.command.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()


def _merged() -> list[Overrides]:
    """Returns the overrides of all rows that train, merged into few runs: rows share a run if no key conflicts."""
    runs: list[Overrides] = []
    for overrides in (_completed(row.overrides) for row in TRAINING):
        free = [run for run in runs if all(run.get(key, value) == value for key, value in overrides.items())]
        target = free[0] if free else {}
        target |= overrides
        runs += [] if free else [target]
    return runs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, composed: Callable[..., DictConfig]) -> Path:
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    arrays = {
        f"{kind}_{split}": values
        for split, count in (("train", 200), ("test", 50))
        for kind, values in (
            ("x", generator.integers(256, size=(count, 28, 28), dtype=np.uint8)),
            ("y", np.arange(count) % 10),
        )
    }
    np.savez(folder / "mnist.npz", allow_pickle=False, **arrays)
    small = ["data.num_examples=120", "data.draw_size=32", "data.image_size=[32,32]", "data.cache=none"]
    faces = composed("data=cats_dogs_synthetic", f"data.path='{folder / 'faces'}'", *small).data
    build(faces, seed=0, augment=[])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("overrides", _merged(), ids=lambda overrides: " ".join(_arguments(overrides)))
def test_overrides_train(
    overrides: Overrides, files: Path, tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    placed = {key: value.replace("FILES", str(files)) for key, value in {**SMALL, **overrides}.items()}
    cfg = composed(*_arguments(placed))
    check(cfg)
    result = run(cfg, tmp_path)
    assert np.isfinite(result.objective)
    assert list((tmp_path / "checkpoints").glob(f"{cfg.checkpoint.name}-*.index"))
