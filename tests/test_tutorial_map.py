"""Every row of docs/tutorial-map.md composes, shows what it says, and trains."""

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
Words = dict[str, str]


class Row(NamedTuple):
    tutorial: str
    command: str
    file: Path
    names: list[str]

    @property
    def trains(self) -> bool:
        return not self.command.startswith(("python ", "make "))

    @property
    def words(self) -> Words:
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


def _named(row: Row) -> str:
    return row.tutorial


def test_no_row_is_overlooked() -> None:
    lines = [line for line in MAP.splitlines() if line.startswith("|") and "|---" not in line]
    titles = [line for line in lines if line.startswith(("| In the", "| **"))]
    assert len(ROWS) == len(lines) - len(titles)


@pytest.mark.parametrize("row", ROWS, ids=_named)
def test_the_file_shows_it(row: Row) -> None:
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
"""What a row leaves to the reader's own files or to the network."""
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
"""Of a run, where no row of it says otherwise."""


def _filled(words: Words) -> Words:
    filled = dict(words)
    for choice in (f"{key}={value}" for key, value in words.items()):
        filled |= NEEDED.get(choice, {})
    return filled


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


def _typed(words: Words) -> list[str]:
    return [f"{key}={value}" for key, value in words.items()]


@pytest.mark.parametrize("row", TRAINING, ids=_named)
def test_the_words_compose(row: Row, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(*_typed({**_filled(row.words), "logging": "none"}))
    check(cfg)
    assert OmegaConf.missing_keys(cfg) == set()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.trains], ids=_named)
def test_the_command_exists(row: Row) -> None:
    door = re.match(r"python -m experiments\.(\w+)", row.command)
    if door:
        with initialize_config_dir(CONF, version_base="1.3"):
            check_values(compose(door[1], _typed({**row.words, "logging": "none"})))
    else:
        assert f"\n{row.command.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()


def _merged() -> list[Words]:
    """The words of all rows that train, in as few runs as they fit into."""
    runs: list[Words] = []
    for words in (_filled(row.words) for row in TRAINING):
        free = [run for run in runs if all(run.get(key, value) == value for key, value in words.items())]
        target = free[0] if free else {}
        target |= words
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
    words = ["data.num_examples=120", "data.draw_size=32", "data.image_size=[32,32]", "data.cache=none"]
    faces = composed("data=cats_dogs_synthetic", f"data.path='{folder / 'faces'}'", *words).data
    build(faces, seed=0, augment=[])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", _merged(), ids=lambda words: " ".join(f"{key}={words[key]}" for key in words))
def test_the_words_train(words: Words, files: Path, tmp_path: Path, composed: Callable[..., DictConfig]) -> None:
    placed = {key: value.replace("FILES", str(files)) for key, value in {**SMALL, **words}.items()}
    cfg = composed(*_typed(placed))
    check(cfg)
    result = run(cfg, tmp_path)
    assert np.isfinite(result.objective)
    assert list((tmp_path / "checkpoints").glob(f"{cfg.checkpoint.name}-*.index"))
