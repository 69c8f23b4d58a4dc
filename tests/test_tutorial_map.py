"""Every row of docs/tutorial-map.md composes, shows what it says, and trains; every pitfall is what it says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments import FitLoop, Position, Splits, TapeLoop, from_arrays
from experiments.config import check, check_values, register
from experiments.data import Flip, cats_dogs_synthetic
from experiments.doors import CONF
from experiments.loops.evaluation import build_variables
from experiments.loops.tape import train_step
from experiments.models.cnn import cnn
from experiments.models.mlp import mlp
from experiments.run import run

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
    "model=application": {"model.weights": "null", "data": "cats_dogs_synthetic", **DRAWN},
}
"""What a row leaves to the reader's own files or to the network."""
SMALL = {
    "epochs": "1",
    "data.limit": "96",
    "data.batch_size": "8",
    "logging": "none",
    "logging.log_model": "false",
    "progress": "none",
    "tensorboard.graph": "false",
}


def _filled(words: Words) -> Words:
    filled = dict(words)
    for choice in (f"{key}={value}" for key, value in words.items()):
        filled |= NEEDED.get(choice, {})
    return filled


def _composed(words: Words, config_name: str = "config") -> DictConfig:
    register()
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(config_name, [f"{key}={value}" for key, value in words.items()])


@pytest.mark.parametrize("row", TRAINING, ids=_named)
def test_the_words_compose(row: Row) -> None:
    check(_composed({**_filled(row.words), "logging": "none"}))


@pytest.mark.parametrize("row", [row for row in ROWS if not row.trains], ids=_named)
def test_the_command_exists(row: Row) -> None:
    door = re.match(r"python -m experiments\.(\w+)", row.command)
    if door:
        check_values(_composed({**row.words, "logging": "none"}, door[1]))
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
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    drawing = {"num_examples": 120, "draw_size": 32, "draw_seed": 0}
    batches = {"batch_size": 8, "shuffle": True, "num_parallel_calls": "auto", "prefetch": "auto", "limit": None}
    images = {"image_size": [32, 32], "channels": 3, "antialias": False, "cache": "none", "on_corrupt": "error"}
    rest: dict[str, Any] = {"validation_fraction": 0.1, "seed": 0, "augment": [], **drawing, **batches, **images}
    cats_dogs_synthetic(str(folder / "faces"), **rest)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", _merged(), ids=lambda words: " ".join(f"{key}={words[key]}" for key in words))
def test_the_words_train(words: Words, files: Path, tmp_path: Path) -> None:
    placed = {key: value.replace("FILES", str(files)) for key, value in {**SMALL, **words}.items()}
    cfg = _composed(placed)
    check(cfg)
    result = run(cfg, tmp_path)
    assert np.isfinite(result.objective)
    assert list((tmp_path / "checkpoints").glob(f"{cfg.checkpoint.name}-*.index"))


COUNT, BATCH = 40, 8


def _splits(num_parallel_calls: int = 1, **changes: Any) -> Splits:
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(COUNT, 8, 8, 1), dtype=np.uint8)
    labels = generator.integers(10, size=COUNT)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "seed": 0, **changes}
    return from_arrays((images, labels), (images, labels), num_parallel_calls=num_parallel_calls, **options)


def _model(l2: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = cnn([4], dropout=0.5, batch_norm_momentum=0.9, l2=l2, input_shape=(8, 8, 1), num_classes=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    build_variables(model, _splits().validation)
    return model


LOOPS = [
    pytest.param(FitLoop(steps_per_execution=1, jit_compile=False), id="fit"),
    pytest.param(TapeLoop(train_step=train_step, steps_per_execution=1, jit_compile=False), id="tape"),
]


def _batch() -> tuple[tf.Tensor, tf.Tensor]:
    batch: tuple[tf.Tensor, tf.Tensor] = next(iter(_splits().train.epoch(0)))
    return batch


PITFALLS = {
    "Shuffling decoded images": "test_nothing_waits_in_a_shuffle_buffer",
    "The gradient of the loss": "test_a_loss_has_no_gradient_of_its_own",
    "Probabilities where logits are meant": "test_softmax_twice_cannot_reach_a_small_loss",
    "Regularisers that are dropped": "test_the_step_keeps_regularisers",
    "Metrics that are never reset": "test_each_epoch_begins_at_zero",
    "training=True forgotten": "test_the_step_trains_batch_normalization",
    "The number of steps of a short first epoch": "test_a_short_first_epoch_shortens_no_other",
    "Random augmentation that depends on threads": "test_threads_change_no_image",
}


def test_each_pitfall_has_its_test() -> None:
    assert re.findall(r"^### (.*)", MAP, re.MULTILINE) == list(PITFALLS)
    assert [name for name in PITFALLS.values() if name not in globals()] == []


def test_nothing_waits_in_a_shuffle_buffer() -> None:
    sources = (ROOT / "src" / "experiments" / "data").glob("*.py")
    assert [path.name for path in sources if ".shuffle(" in path.read_text()] == []
    first, again, other = (
        np.concatenate([labels for _, labels in _splits().train.epoch(epoch).as_numpy_iterator()])
        for epoch in (3, 3, 4)
    )
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_loss_has_no_gradient_of_its_own() -> None:
    kernel = tf.Variable([2.0])
    with tf.GradientTape() as tape:
        loss = kernel**2
    with pytest.raises(AttributeError, match="gradient"):
        loss.gradient([kernel])
    assert tape.gradient(loss, [kernel])[0].numpy() == [4.0]


@pytest.mark.parametrize(("logits_of", "smallest"), [(tf.nn.softmax, 1.46), (tf.identity, 0.0)])
def test_softmax_twice_cannot_reach_a_small_loss(logits_of: Any, smallest: float) -> None:
    certain = logits_of(100.0 * tf.eye(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(tf.range(10), certain)
    assert float(loss) == pytest.approx(smallest, abs=0.005)


def test_built_in_models_end_in_logits() -> None:
    for model in (_model(), mlp([4], dropout=0.0, input_shape=(8, 8, 1), num_classes=10)):
        assert not np.allclose(np.sum(model(_batch()[0]), axis=-1), 1.0)


def test_the_step_keeps_regularisers() -> None:
    model, (images, labels) = _model(l2=1.0), _batch()
    plain = model.loss(labels, model(images, training=False))
    whole = model.compute_loss(x=images, y=labels, y_pred=model(images, training=False))
    kernel = model.blocks[0].convolution.kernel
    assert float(whole - plain) == pytest.approx(float(tf.reduce_sum(kernel**2)), rel=1e-4)


class Seen(keras.callbacks.Callback):
    """Steps of each epoch, and the number of examples that its loss is the mean of."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.examples: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.steps.append(0)
        self.examples.append(0)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.steps[-1] += 1
        self.examples[-1] = int(self.model.metrics[0].count)


def _train(loop: Any, start: Position) -> Seen:
    seen = Seen()
    loop(_model(), _splits(), epochs=3, start=start, callbacks=[seen])
    return seen


@pytest.mark.parametrize("loop", LOOPS)
def test_each_epoch_begins_at_zero(loop: Any) -> None:
    assert _train(loop, Position()).examples == [COUNT] * 3


@pytest.mark.parametrize("loop", LOOPS)
def test_a_short_first_epoch_shortens_no_other(loop: Any) -> None:
    assert _train(loop, Position(epoch=1, step=3)).steps == [COUNT // BATCH - 3, COUNT // BATCH]


def test_the_step_trains_batch_normalization() -> None:
    model = _model()
    moving_mean = model.blocks[0].normalization.moving_mean
    before = moving_mean.numpy()
    model(_batch()[0])
    assert (moving_mean.numpy() == before).all()
    train_step(model, _batch())
    assert (moving_mean.numpy() != before).any()


def test_threads_change_no_image() -> None:
    one, four = (
        np.concatenate([images for images, _ in splits.train.epoch(1).as_numpy_iterator()])
        for splits in (_splits(count, augment=[Flip(horizontal=True, vertical=True)]) for count in (1, 4))
    )
    assert (one == four).all()
