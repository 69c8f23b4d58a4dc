"""Logs scalars and images of user-defined code to TensorBoard and the tracker."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from experiments.errors import ExperimentError
from experiments.files import replacing
from experiments.tracking.base import Tracker, Upload

IMAGES, PREVIEW_SIZE = "images", 512  # the folder is the one that MLflow's page reads
_NAME = re.compile(r"[\w\- :]+(?:[./][\w\- :]+)*")
RESERVED = re.compile(r"best_.*|training images|most wrong")
Pixels = npt.NDArray[np.uint8]


class Recorder:
    """Writes to `tensorboard/custom` and `images/` in the output folder, and to the tracker."""

    def __init__(self, tracker: Tracker, output_dir: Path) -> None:
        self._tracker = tracker
        self._output_dir = output_dir
        self._writer: Any = None
        self._lock = Lock()

    def scalar(self, name: str, value: float, step: int) -> None:
        # Keras's callback disables recording between its own steps, and leaves it disabled if an error ends a step.
        with self._tensorboard().as_default(), tf.summary.record_if(True):
            tf.summary.scalar(name, value, step=step)
        self._tracker.log_metrics({name: value}, step=step)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        with self._tensorboard().as_default(), tf.summary.record_if(True):
            tf.summary.image(name, pixels[np.newaxis], step=step)
        self.save_image(name, pixels, step)

    def save_image(self, name: str, pixels: Pixels, step: int) -> None:
        """Saves image and preview for MLflow's page. Without times in their names, a resumed run replaces them."""
        image = Image.fromarray(pixels.squeeze(axis=-1) if pixels.shape[-1] == 1 else pixels)
        size = [max(1, round(side * PREVIEW_SIZE / max(image.size))) for side in image.size]
        preview = image.resize(size, Image.Resampling.BOX)
        stem = self._output_dir / IMAGES / f"{name.replace('/', '~')}+step+{step}+timestamp+0+0"
        stem.parent.mkdir(parents=True, exist_ok=True)
        for each, path in ((image, Path(f"{stem}.png")), (preview, Path(f"{stem}+compressed.webp"))):
            with replacing(path, self._output_dir / f".{path.name}") as temporary:  # the page accepts no other names
                each.save(temporary)
            self._tracker.log_artifacts(Upload(path, IMAGES))
        self._tracker.set_tags({"mlflow.loggedImages": "True"})

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        """Returns the writer, created at the first call, so that a run without custom records has no event file."""
        with self._lock:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._output_dir / "tensorboard" / "custom"))
            return self._writer


_active: list[Recorder] = []
"""Recorders of the open runs, innermost last. A context variable would not reach callbacks and data threads."""


@contextmanager
def recording(tracker: Tracker, output_dir: Path) -> Iterator[None]:
    """Directs `log_scalar` and `log_image` to this run while the block is active."""
    recorder = Recorder(tracker, output_dir)
    _active.append(recorder)
    try:
        yield
    finally:
        _active.remove(recorder)
        recorder.close()


def flush() -> None:
    """Writes buffered records to disk."""
    for recorder in _active:
        recorder.flush()


def log_scalar(name: str, value: float, step: int) -> None:
    """Logs one number. Raises ExperimentError outside of a run, or if `value` is not a single number."""
    recorder = _recorder("log_scalar", name)
    recorder.scalar(name, _number(name, value), int(step))


def log_image(name: str, image: Any, step: int) -> None:
    """Logs one image and saves it in `images/`, from which MLflow's page shows the steps of a name with a slider.

    `image` has shape [height, width, channels] with 1 or 3 channels, as uint8, or as floating point from 0 to 1.
    Raises ExperimentError outside of a run, or for another shape, dtype or range.
    """
    recorder = _recorder("log_image", name)
    recorder.image(name, _pixels(name, image), int(step))


def save_image(name: str, pixels: Pixels, step: int) -> None:
    """Saves an image that TensorBoard does not receive from here. Does nothing outside of a run."""
    for recorder in _active[-1:]:
        recorder.save_image(name, pixels, step)


def _recorder(function: str, name: str) -> Recorder:
    if not _active:
        raise ExperimentError(
            f"{function}('{name}', ...) was called outside of a run: expected a call from code that "
            "`experiments train` runs (model, loss, callback, train step). Remove the call, or open a run "
            "around it with experiments.runs.recording.recording(tracker, output_dir)."
        )
    if not _NAME.fullmatch(name) or len(name.encode()) > 150:  # file systems allow 255 bytes with the step
        raise ExperimentError(
            f"{function} got the name '{name}': expected letters, digits, '_', '-', ':', blanks, and single "
            "'.' or '/' between them, at most 150 bytes."
        )
    if RESERVED.fullmatch(name):
        raise ExperimentError(f"{function} got the name '{name}', which the run itself records. Choose another one.")
    return _active[-1]


def _number(name: str, value: Any) -> float:
    try:
        return float(np.asarray(value).item())  # autograph would turn `float(value)` into a symbolic cast
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ExperimentError(
            f"log_scalar('{name}', ...) expected one number, received {type(value).__name__}: {value}. Reduce it to a "
            "number first; inside a tf.function there are no numbers yet: return the value and log it from a callback."
        ) from error


def _pixels(name: str, image: Any) -> Pixels:
    array: npt.NDArray[Any] = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise _wrong_image(name, f"shape {list(array.shape)}")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise _wrong_image(name, f"dtype {array.dtype}")
    if not (array.min() >= 0 and array.max() <= 1):  # also true for NaN
        raise _wrong_image(name, f"values from {array.min():g} to {array.max():g}")
    scaled: Pixels = np.rint(array * 255).astype(np.uint8)
    return scaled


def _wrong_image(name: str, received: str) -> ExperimentError:
    return ExperimentError(
        f"log_image('{name}', ...) expected [height, width, 1 or 3] as uint8, or as floating point from 0 to 1; "
        f"received {received}."
    )
