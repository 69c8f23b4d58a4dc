"""Scalars and images of user-defined code in TensorBoard and the tracker."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.errors import ExperimentError
from experiments.runs.recording import log_image, log_scalar, recording
from experiments.tracking.base import Tracker, Upload


class RecordingTracker(Tracker):
    def __init__(self) -> None:
        self.metrics: list[tuple[dict[str, float], int]] = []
        self.uploads: list[Upload] = []
        self.tags: dict[str, str] = {}

    def log_metrics(self, metrics: Any, *, step: int) -> None:
        self.metrics.append((dict(metrics), step))

    def log_artifacts(self, upload: Upload) -> None:
        self.uploads.append(upload)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags


def _tags(folder: Path, kind: str) -> list[str]:
    events = EventAccumulator(str(folder / "tensorboard" / "custom")).Reload()
    return list(events.Tags()[kind])


def test_records_are_written_while_recording_is_disabled(tmp_path: Path) -> None:
    """Keras's callback disables recording between its steps, and permanently if an error ends the training."""
    with recording(RecordingTracker(), tmp_path), tf.summary.record_if(False):
        log_image("mine/filter 1", np.zeros((4, 6, 3), np.uint8), 7)
        log_scalar("mine/angle", 0.5, 3)
    assert sorted(_tags(tmp_path, "tensors")) == ["mine/angle", "mine/filter 1"]


def test_scalar_reaches_tensorboard_and_tracker(tmp_path: Path) -> None:
    tracker = RecordingTracker()
    with recording(tracker, tmp_path):
        log_scalar("mine/angle", tf.constant(0.5), 3)
        thread = Thread(target=log_scalar, args=("mine/angle", np.float32(0.25), 4))
        thread.start()
        thread.join()
    assert tracker.metrics == [({"mine/angle": 0.5}, 3), ({"mine/angle": 0.25}, 4)]
    assert _tags(tmp_path, "tensors") == ["mine/angle"]


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (np.full((4, 6, 3), 255, np.uint8), "RGB", (255, 255, 255)),
        (np.full((4, 6, 1), 0.5, np.float32), "L", 128),
        (tf.ones, "RGB", (255, 255, 255)),
    ],
)
def test_image_reaches_tensorboard_and_tracker_under_fixed_names(
    tmp_path: Path, image: Any, mode: str, pixel: Any
) -> None:
    """The names are those of `mlflow.log_image`, except for its time and its random id."""
    tracker = RecordingTracker()
    for _ in range(2):  # as a resumed run repeats it
        with recording(tracker, tmp_path):
            log_image("mine/filter 1", image((4, 6, 3)) if callable(image) else image, 7)
    names = ["mine~filter 1+step+7+timestamp+0+0.png", "mine~filter 1+step+7+timestamp+0+0+compressed.webp"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(names)
    assert tracker.uploads == 2 * [Upload(tmp_path / "images" / name, "images") for name in names]
    assert tracker.tags == {"mlflow.loggedImages": "True"}
    with Image.open(tmp_path / "images" / names[0]) as found:
        assert (found.mode, found.size, found.getpixel((0, 0))) == (mode, (6, 4), pixel)
    with Image.open(tmp_path / "images" / names[1]) as found:
        assert (found.format, found.size) == ("WEBP", (512, 341))
    assert _tags(tmp_path, "tensors") == ["mine/filter 1"]


def test_run_without_records_writes_no_file(tmp_path: Path) -> None:
    with recording(RecordingTracker(), tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "function"),
    [(lambda: log_scalar("x", 1.0, 0), "log_scalar"), (lambda: log_image("x", np.zeros((2, 2, 1)), 0), "log_image")],
)
def test_call_outside_of_run_is_refused(call: Callable[[], None], function: str, tmp_path: Path) -> None:
    with recording(RecordingTracker(), tmp_path):
        pass
    with pytest.raises(ExperimentError) as error:
        call()
    assert str(error.value).startswith(f"{function}('x', ...) was called outside of a run: expected a call from code")


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.zeros((2, 2), np.uint8), r"shape \[2, 2\]"),
        (np.zeros((2, 2, 4), np.uint8), r"shape \[2, 2, 4\]"),
        (np.zeros((2, 2, 3), np.int64), "dtype int64"),
        (np.full((2, 2, 3), 255.0), "values from 255 to 255"),
        (np.full((2, 2, 3), math.nan), "values from nan to nan"),
    ],
)
def test_invalid_image_is_refused(tmp_path: Path, image: Any, received: str) -> None:
    with recording(RecordingTracker(), tmp_path), pytest.raises(ExperimentError, match=f"received {received}"):
        log_image("x", image, 0)


@pytest.mark.parametrize("value", [[1.0, 2.0], "word", None])
def test_scalar_that_is_not_a_number_is_refused(tmp_path: Path, value: Any) -> None:
    with recording(RecordingTracker(), tmp_path), pytest.raises(ExperimentError, match="expected one number"):
        log_scalar("x", value, 0)


def test_call_inside_graph_is_refused_with_advice(tmp_path: Path) -> None:
    @tf.function
    def step(value: tf.Tensor) -> tf.Tensor:
        log_scalar("x", value, 0)
        return value

    with recording(RecordingTracker(), tmp_path), pytest.raises(ExperimentError, match=r"inside a tf\.function"):
        step(tf.constant(1.0))


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "a|b", "x/", "a/../b", "é" * 76])
def test_invalid_name_is_refused(tmp_path: Path, name: str) -> None:
    with recording(RecordingTracker(), tmp_path), pytest.raises(ExperimentError, match="got the name"):
        log_scalar(name, 1.0, 0)


@pytest.mark.parametrize("name", ["best_val_accuracy", "best_epoch", "training images", "most wrong"])
def test_name_of_what_the_run_records_is_refused(tmp_path: Path, name: str) -> None:
    with recording(RecordingTracker(), tmp_path), pytest.raises(ExperimentError, match="which the run itself records"):
        log_scalar(name, 1.0, 0)
