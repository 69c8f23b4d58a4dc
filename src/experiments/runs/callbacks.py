"""Callbacks of every run: metrics for the tracker, summaries for TensorBoard, and the stop on divergence."""

import csv
import io
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.font_manager import findfont
from omegaconf import DictConfig
from PIL import Image, ImageDraw, ImageFont
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.summary import session_end_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from experiments.checkpoints.layout import CHECKPOINTS, last_checkpoint
from experiments.checkpoints.store import newest_finite
from experiments.data import Splits
from experiments.data.base import WHITE, Split
from experiments.errors import TrainingError
from experiments.files import write_atomically
from experiments.records.description import params
from experiments.runs import recording
from experiments.runs.figures import drawable
from experiments.runs.measurements import TrackMetrics
from experiments.runs.progress import epoch_line
from experiments.tracking.base import Tracker
from experiments.tracking.redaction import mask

Logs = Mapping[str, float]
CAPTION_WIDTH, CAPTION_HEIGHT, FONT_SIZE = 96, 18, 13
HISTORY = logging.getLogger("experiments.history")
"""Writes to the log file only: the terminal shows the epochs in another form."""


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback, extended by a grid of training images as the model receives them, the graph of a training step,
    a row of the HParams page with the best `monitor`, and a state, so that a resumed run records no step twice.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        train: Split,
        trial: str,
        hparams: Mapping[str, str],
        monitor: str,
        mode: str,
        every_n_steps: int | None,
        histogram_every_n_epochs: int,
        graph: bool,
        images: int,
        profile_steps: Sequence[int] | None,
    ) -> None:
        super().__init__(
            log_dir=log_dir,
            update_freq=every_n_steps or "epoch",
            histogram_freq=histogram_every_n_epochs,
            write_graph=graph,
            profile_batch=tuple(profile_steps) if profile_steps else 0,
        )
        self._every_n_steps = every_n_steps
        self._begun = 0
        self._train = train
        self._images = images
        self._profiles = bool(profile_steps)
        # A profile contains a graph already, and TensorFlow cannot record two at a time.
        self._records_graph = graph and not profile_steps
        self._step_mark = tf.profiler.experimental.Trace("train")
        self._earlier: list[Path] = []
        self._steps_tested = 0
        self._trial, self._hparams = trial, hparams
        self._monitor, self._best = monitor, {"min": np.fmin, "max": np.fmax}[mode]  # without NaN

    def set_model(self, model: keras.Model) -> None:
        # Listed before this process creates its own files.
        self._earlier = _event_files(Path(self.log_dir))
        super().set_model(model)
        # TensorBoard takes a run and the runs in folders below it, `train` and `validation`, as one row.
        self._writers["hparams"] = tf.summary.create_file_writer(str(self.log_dir))

    def get_state(self) -> dict[str, Any]:
        """Returns the size of each event file; `set_state` cuts off later records, which a resumed run writes again."""
        recording.flush()
        for writer in self._writers.values():
            writer.flush()
        files = {str(path.relative_to(self.log_dir)): path.stat().st_size for path in _event_files(Path(self.log_dir))}
        return {"files": files, "train": self._global_train_batch, "validation": self._steps_tested}

    def set_state(self, state: dict[str, Any]) -> None:
        self._cut_earlier(state["files"])
        self._global_train_batch = self._begun = state["train"]
        self._global_test_batch = self._steps_tested = state["validation"]
        self._records_graph = False

    def _cut_earlier(self, sizes: Mapping[str, int]) -> None:
        for path in self._earlier:
            cut_or_remove(path, sizes.get(str(path.relative_to(self.log_dir))))
        self._earlier = []

    def on_test_end(self, logs: Logs | None = None) -> None:
        # Keras records these only if the last batch is a step of update_freq.
        with self._val_writer.as_default(), tf.summary.record_if(True):
            for name, value in (logs or {}).items():
                tf.summary.scalar(f"evaluation_{name}_vs_iterations", value, step=self.model.optimizer.iterations)
        super().on_test_end({})
        # Counted only here, because an interrupted validation is repeated from its first batch.
        self._steps_tested = self._global_test_batch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        # Files left here belong to a run that was stopped before its first checkpoint and starts again.
        self._cut_earlier({})
        super().on_epoch_begin(epoch, logs)
        if self._begun == 0:
            number = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
            typed = {key: float(text) if number.fullmatch(text) else text for key, text in self._hparams.items()}
            self._write(hparams_pb(typed, self._trial))
        # TensorBoard shows images of 1, 3 or 4 channels.
        if self._begun == 0 and self._images and self._train.spec.input_shape[2:] in ((1,), (3,), (4,)):
            images, labels, *_ = (each[: self._images].numpy() for each in next(iter(self._train.epoch(0))))
            if images.dtype != np.uint8:
                white = WHITE.get(str(self._train.spec.value_range))
                low, high = (images.min(), images.max()) if white is None else (0.0, white)
                images = np.rint(np.clip((images - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
            pixels = grid(captioned(images, labels, self._train.spec.class_names))
            with self._train_writer.as_default(), tf.summary.record_if(True):
                tf.summary.image("training images", pixels[None], step=0)
            recording.save_image("training images", pixels, step=0)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_begin(batch, logs)
        self._begun += 1
        if self._records_graph:
            tf.summary.trace_on(graph=True)
        if self._profiles:
            # Without `_r=1`, which Keras omits, the profile page finds no steps and shows zero for all times.
            self._step_mark = tf.profiler.experimental.Trace("train", step_num=batch, _r=1)
            self._step_mark.__enter__()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._profiles:
            self._step_mark.__exit__(None, None, None)
        if self._records_graph:
            self._records_graph = False
            # Keras disables recording between the steps of update_freq.
            with self._train_writer.as_default(), tf.summary.record_if(True):
                tf.summary.trace_export("first step", step=0)
        # Keras builds every scalar, which takes 1 ms per step, before it drops those between the steps of update_freq.
        due = self._every_n_steps is not None and self._begun % self._every_n_steps == 0
        super().on_train_batch_end(batch, logs if due else None)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        # Keras skips an epoch whose last step is not one of update_freq.
        with tf.summary.record_if(True):
            super().on_epoch_end(epoch, logs)
            values = [*self.model.history.history.get(self._monitor, [])[:epoch], (logs or {})[self._monitor]]
            with self._writers["hparams"].as_default():
                tf.summary.scalar(f"best_{self._monitor}", self._best.reduce(values), step=epoch)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._write(session_end_pb(Status.Value("STATUS_SUCCESS")))
        super().on_train_end(logs)

    def _write(self, record: Any) -> None:
        with self._writers["hparams"].as_default(), tf.summary.record_if(True):
            tf.summary.experimental.write_raw_pb(record.SerializeToString(), step=0)


def _event_files(log_dir: Path) -> list[Path]:
    return sorted(log_dir.rglob("events.out.tfevents.*"))


def cut_or_remove(path: Path, size: int | None) -> None:
    """Truncates the file to `size` bytes, its size at the checkpoint. None removes a file that did not exist then."""
    if size is None:
        path.unlink()
    elif size < path.stat().st_size:
        os.truncate(path, size)


def captioned(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns uint8 images [n, height, width, channels], small ones enlarged, with the names of integer labels."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return images
    factor = max(1, round(CAPTION_WIDTH / images.shape[2]))
    images = np.pad(images.repeat(factor, 1).repeat(factor, 2), ((0, 0), (0, CAPTION_HEIGHT), (0, 0), (0, 0)))
    names, font = drawable(class_names, "class")
    texts = {str(number): name.replace(r"\$", "$") for number, name in enumerate(names)}
    for image, label in zip(images, map(str, labels), strict=True):
        drawn = Image.new("L", (images.shape[2], CAPTION_HEIGHT))
        ImageDraw.Draw(drawn).text((2, 1), texts.get(label, label), 255, ImageFont.truetype(findfont(font), FONT_SIZE))
        image[-CAPTION_HEIGHT:] = np.asarray(drawn)[..., np.newaxis]
    return images


def grid(images: np.ndarray) -> np.ndarray:
    """Tiles images of shape [n, height, width, channels] into an almost square grid; empty tiles are black."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    tiles = np.pad(images, ((0, rows * columns - count), (0, 0), (0, 0), (0, 0)))
    return tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)


class EpochLog(keras.callbacks.Callback):
    """Writes the history of the run to the file `metrics.csv`, and a line for each epoch to the log file of the run."""

    def __init__(self, path: Path, *, epochs: int) -> None:
        super().__init__()
        self._path = path
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        # The history begins with the epochs before the run was resumed, and ends with this epoch or with the last one.
        history = {name: [*self.model.history.history.get(name, [])[:epoch], value] for name, value in logs.items()}
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["epoch", *history])
        rows.writerows([number, *values] for number, values in enumerate(zip(*history.values(), strict=True), 1))
        write_atomically(self._path, text.getvalue())
        HISTORY.info(epoch_line(epoch, self._epochs, logs).replace("\u00a0", " "))


class StopWhenDiverged(keras.callbacks.Callback):
    """Raises TrainingError at the first batch whose loss is not finite, or above `max_loss` (None: no bound)."""

    def __init__(self, checkpoints: Path, *, max_loss: float | None) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._max_loss = math.inf if max_loss is None else max_loss
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if math.isfinite(loss) and loss <= self._max_loss:
            return
        step = self._epoch * self.params["steps"] + batch + 1
        expected = f"at most monitor.max_loss={self._max_loss:g}" if math.isfinite(loss) else "a finite number"
        raise TrainingError(
            f"the loss is {loss:g} at step {step} (epoch {self._epoch + 1}, batch {batch + 1}): expected {expected}. "
            f"{last_checkpoint('good', newest_finite(self._checkpoints))} Lower optimizer.learning_rate, or set "
            "optimizer.global_clipnorm=1."
        )


def builtin_callbacks(
    cfg: DictConfig, splits: Splits, tracker: Tracker, output_dir: Path, *, began: float
) -> dict[str, keras.callbacks.Callback]:
    """Returns the callbacks of every run, under names that no callback of a config can have."""
    monitor, every_n_steps = (cfg.monitor.metric, cfg.monitor.mode), cfg.logging.every_n_steps
    trial = mask(f"{cfg.logging.run_name or output_dir.name} {output_dir}")
    row = {"trial": trial, "hparams": params(cfg), "monitor": cfg.monitor.metric, "mode": cfg.monitor.mode}
    return {
        "(tracking)": TrackMetrics(tracker, splits.train, *monitor, every_n_steps=every_n_steps, began=began),
        "(tensorboard)": TensorBoard(output_dir / "tensorboard", train=splits.train, **row, **cfg.tensorboard),
        "(epochs)": EpochLog(output_dir / "metrics.csv", epochs=cfg.epochs),
        "(divergence)": StopWhenDiverged(output_dir / CHECKPOINTS, max_loss=cfg.monitor.max_loss),
    }
