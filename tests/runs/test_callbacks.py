"""Metrics in the tracker and summaries in TensorBoard, with their steps."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from experiments.data import Splits, from_arrays
from experiments.loops import FitLoop, Loop, Position, TapeLoop
from experiments.loops.evaluation import build_variables
from experiments.models.mlp import mlp
from experiments.runs.callbacks import CAPTION_HEIGHT, TensorBoard, captioned, grid
from experiments.runs.measurements import TrackMetrics
from experiments.tracking.base import Tracker


class RecordingTracker(Tracker):
    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.metrics.append((step, {name: float(value) for name, value in metrics.items()}))


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Splits with six steps per epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (31, 6, 6, 1), np.uint8), rng.integers(0, 3, 31)
    return from_arrays((x[:22], y[:22]), (x[22:], y[22:]), batch_size=4, shuffle=True, seed=5)


def train(
    splits: Splits,
    *callbacks: keras.callbacks.Callback,
    loop: str = "tape",
    steps_per_execution: int = 1,
    start: Position | None = None,
) -> dict[str, list[float]]:
    """Trains two epochs with a learning rate that halves at every step."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, decay_steps=1, decay_rate=0.5)
    model = mlp([8], 0.2, input_shape=(6, 6, 1), num_classes=3)
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    build_variables(model, splits.validation)
    loops: dict[str, Loop] = {
        "fit": FitLoop(steps_per_execution, jit_compile=False),
        "tape": TapeLoop("experiments.loops.tape.train_step", steps_per_execution, jit_compile=False),
    }
    return loops[loop](model, splits, epochs=2, start=start or Position(), callbacks=callbacks)


def tracked(tracker: Tracker, splits: Splits, every_n_steps: int | None = None, **options: Any) -> TrackMetrics:
    defaults = {"metric": "val_loss", "mode": "min"}
    settings = {**defaults, "began": time.monotonic(), **options}
    return TrackMetrics(tracker, splits.train, every_n_steps=every_n_steps, **settings)


MEASURED = {"peak_memory_mb", "seconds_per_epoch", "examples_per_second"}


@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_tracker_receives_metrics_of_each_epoch(splits: Splits, loop: str) -> None:
    tracker = RecordingTracker()
    history = train(splits, tracked(tracker, splits), loop=loop)
    (first_step, *epochs) = tracker.metrics
    assert (first_step[0], set(first_step[1])) == (1, {"seconds_to_first_step"})
    assert [step for step, _ in epochs] == [1, 2]
    for epoch, (_, metrics) in enumerate(epochs):
        names = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} | MEASURED
        assert set(metrics) - {"best_val_loss", "best_epoch"} == names
        assert all(metrics[name] == values[epoch] for name, values in history.items())
        assert metrics["learning_rate"] == pytest.approx(0.01 * 0.5 ** (6 * (epoch + 1)))


@pytest.mark.parametrize("loop", ["fit", "tape"])
@pytest.mark.parametrize(
    ("steps_per_execution", "start", "expected"),
    [
        (1, Position(), {1: list(range(1, 13)), 5: [5, 10], 99: []}),
        (1, Position(1, 2), {5: [10]}),
        (4, Position(), {5: [6, 10]}),
    ],
)
def test_tracker_receives_batch_metrics_every_n_steps(
    splits: Splits, loop: str, steps_per_execution: int, start: Position, expected: dict[int, list[int]]
) -> None:
    """`expected` are steps by `every_n_steps`. Each value has its own callback in the same training."""
    trackers = {every: RecordingTracker() for every in expected}
    callbacks = [tracked(tracker, splits, every) for every, tracker in trackers.items()]
    train(splits, *callbacks, loop=loop, steps_per_execution=steps_per_execution, start=start)
    for every, steps in expected.items():
        batches = [(step, metrics) for step, metrics in trackers[every].metrics if "batch/loss" in metrics]
        assert [step for step, _ in batches] == steps, every
        assert all(set(metrics) == {"batch/loss", "batch/accuracy"} for _, metrics in batches)


HPARAMS = {"model": "mlp", "optimizer.learning_rate": "1e-05", "data.limit": "null", "epochs": "2", "x": "1.2.3"}


def board(folder: Path, splits: Splits, **options: Any) -> TensorBoard:
    defaults = {"every_n_steps": None, "histogram_every_n_epochs": 0, "graph": False, "images": 0}
    row = {"trial": "a trial", "hparams": HPARAMS, "monitor": "val_loss", "mode": "min"}
    return TensorBoard(folder, train=splits.train, **{**row, **defaults, "profile_steps": None, **options})


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


@pytest.mark.parametrize(("every_n_steps", "points"), [(1, 12), (5, 2)])
def test_tensorboard_contains_scalars_and_histograms(
    tmp_path: Path, splits: Splits, every_n_steps: int, points: int
) -> None:
    history = train(splits, board(tmp_path, splits, every_n_steps=every_n_steps, histogram_every_n_epochs=1))
    shown = events(tmp_path / "train")
    losses = [float(tf.make_ndarray(event.tensor_proto)) for event in shown.Tensors("epoch_loss")]
    assert losses == pytest.approx(history["loss"])
    assert "epoch_learning_rate" in shown.Tags()["tensors"]
    assert len(shown.Tensors("batch_loss")) == points
    assert any("histogram" in tag and "kernel" in tag for tag in shown.Tags()["tensors"])
    validation = events(tmp_path / "validation")
    for tag, steps in (("epoch_loss", [0, 1]), ("evaluation_loss_vs_iterations", [6, 12])):
        found = validation.Tensors(tag)
        assert [event.step for event in found] == steps, tag
        assert [float(tf.make_ndarray(event.tensor_proto)) for event in found] == pytest.approx(history["val_loss"])


def session(folder: Path) -> tuple[list[SessionStartInfo], list[str], list[tuple[int, float]]]:
    """Start records and end states of the HParams page, and the points of the best value."""
    # Files of the same second differ in a number at the end, which has no leading zeros.
    files = sorted(folder.glob("events*"), key=lambda file: (len(file.name), file.name))
    shown = [event for file in files for event in tf.compat.v1.train.summary_iterator(str(file))]
    values = [(event.step, value) for event in shown for value in event.summary.value]
    content: dict[str, list[Any]] = {"_hparams_/session_start_info": [], "_hparams_/session_end_info": []}
    for _, value in values:
        if value.tag in content:
            content[value.tag].append(HParamsPluginData.FromString(value.metadata.plugin_data.content))
    starts, ends = content.values()
    best = [(step, float(tf.make_ndarray(value.tensor))) for step, value in values if value.tag == "best_val_loss"]
    return (
        [record.session_start_info for record in starts],
        [Status.Name(record.session_end_info.status) for record in ends],
        best,
    )


def test_tensorboard_contains_row_of_hparams_page(tmp_path: Path, splits: Splits) -> None:
    history = train(splits, board(tmp_path, splits, every_n_steps=5))
    (start,), ends, best = session(tmp_path)
    numbers = {name: value.number_value for name, value in start.hparams.items() if value.HasField("number_value")}
    texts = {name: value.string_value for name, value in start.hparams.items() if value.HasField("string_value")}
    assert numbers == {"optimizer.learning_rate": 1e-5, "epochs": 2.0}
    assert texts == {"model": "mlp", "data.limit": "null", "x": "1.2.3"}
    assert start.group_name == "a trial"
    assert ends == ["STATUS_SUCCESS"]
    assert [step for step, _ in best] == [0, 1]
    assert [value for _, value in best] == pytest.approx(np.minimum.accumulate(history["val_loss"]))


def test_resumed_run_has_one_row_of_hparams_page(tmp_path: Path, splits: Splits) -> None:
    """The run ends after its first epoch, leaves its last records uncut, and continues from the state at that epoch."""
    first, states = board(tmp_path, splits), []
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: states.append(first.get_state()))
    history = train(splits, first, stop)
    again = board(tmp_path, splits)
    restore = keras.callbacks.LambdaCallback(on_train_begin=lambda _: again.set_state(states[0]))
    earlier = {name: values[:1] for name, values in history.items()}
    history = train(splits, again, restore, start=Position(1, history=earlier))
    starts, ends, best = session(tmp_path)
    assert (len(starts), ends) == (1, ["STATUS_SUCCESS"])
    assert [step for step, _ in best] == [0, 1]
    assert [value for _, value in best] == pytest.approx(np.minimum.accumulate(history["val_loss"]))


SHOWN = np.random.default_rng(0).permutation(np.linspace(0, 255, 4 * 36, dtype=np.uint8)).reshape(4, 6, 6, 1)


@pytest.mark.parametrize(
    "images",
    [SHOWN, SHOWN.astype(np.float32), SHOWN / 255, (SHOWN - 120.0) / 70],
    ids=["uint8", "0..255", "0..1", "standardised"],
)
def test_tensorboard_contains_grid_of_training_images(tmp_path: Path, images: np.ndarray) -> None:
    pair = images, np.arange(4) % 3
    splits = from_arrays(pair, pair, batch_size=4, shuffle=False, seed=0)
    train(splits, board(tmp_path, splits, images=4))
    _, _, png = tf.make_ndarray(events(tmp_path / "train").Tensors("training images")[0].tensor_proto)
    expected = grid(captioned(SHOWN, pair[1], splits.train.spec.class_names))
    assert expected.shape == (2 * (96 + CAPTION_HEIGHT), 2 * 96, 1)
    np.testing.assert_allclose(tf.io.decode_png(png), expected, atol=1)


def text_in(strip: np.ndarray) -> bytes:
    """Returns the drawn pixels without the black border."""
    rows, columns = (np.flatnonzero(strip.any(axis)) for axis in (1, 0))
    return strip[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tobytes() if len(rows) else b""


@pytest.mark.parametrize(("width", "factor"), [(8, 12), (96, 1), (300, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_captioned_images_are_enlarged_and_named(width: int, factor: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, width, channels)).astype(np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    found = captioned(pixels, np.array([1, 0, 1, 255]), ["cat", "dog $5$"])
    assert found.dtype == np.uint8
    enlarged = found[:, : 5 * factor]
    for row, column in ((0, 0), (2, 3), (4, width - 1)):
        tile = enlarged[:, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert (tile == pixels[:, row : row + 1, column : column + 1]).all()
    strips = found[:, 5 * factor :]
    assert strips.shape == (4, CAPTION_HEIGHT, width * factor, channels)
    texts = [text_in(strip[..., 0]) for strip in strips]
    assert all((strips == strips[..., :1]).ravel())
    assert texts[0] == texts[2] != texts[1]
    assert b"" not in texts


@pytest.mark.parametrize("labels", [np.zeros((2, 3), np.int64), np.array([0.5, 0.25])])
def test_images_without_class_numbers_have_no_captions(labels: np.ndarray) -> None:
    images = np.array([0, 255, 128, 191], np.uint8).reshape(2, 1, 2, 1)
    np.testing.assert_array_equal(captioned(images, labels, ["a"]), images)


@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_tensorboard_contains_graph_of_training_step(tmp_path: Path, splits: Splits, loop: str) -> None:
    train(splits, board(tmp_path, splits, graph=True), loop=loop)
    found = events(tmp_path / "train").SummaryMetadata("first step")
    assert found.plugin_data.plugin_name == "graph_run_metadata_graph"


@pytest.mark.slow
def test_profile_of_selected_steps_is_written(tmp_path: Path, splits: Splits) -> None:
    train(splits, board(tmp_path, splits, profile_steps=[2, 4]))
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_tensorboard_without_options_contains_only_epoch_scalars(tmp_path: Path, splits: Splits) -> None:
    train(splits, board(tmp_path, splits))
    assert set(events(tmp_path / "train").Tags()["tensors"]) == {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"}


@pytest.mark.parametrize(("count", "shape"), [(1, (2, 3, 1)), (4, (4, 6, 1)), (5, (4, 9, 1)), (16, (8, 12, 1))])
def test_grid_is_almost_square(count: int, shape: tuple[int, ...]) -> None:
    images = np.arange(count, dtype=np.uint8).repeat(6).reshape(count, 2, 3, 1) + 1
    tiles = grid(images)
    assert tiles.shape == shape
    assert int(np.count_nonzero(tiles)) == images.size
    assert (tiles[:2, :3] == 1).all()
