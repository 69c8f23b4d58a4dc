"""What watches a run: metrics to the tracker, summaries for TensorBoard, predictions for the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from experiments.data.base import Split
from experiments.tracking.base import Tracker

Logs = Mapping[str, float]


class TrackMetrics(keras.callbacks.Callback):
    """Metrics to the tracker: per epoch under Keras's names, per `every_n_steps` batches as `batch/...`."""

    def __init__(self, tracker: Tracker, *, every_n_steps: int | None) -> None:
        super().__init__()
        self._tracker = tracker
        self._every_n_steps = every_n_steps
        self._step = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._step = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._step += 1
        if self._every_n_steps is not None and self._step % self._every_n_steps == 0:
            self._tracker.log_metrics({f"batch/{name}": value for name, value in (logs or {}).items()}, step=self._step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        learning_rate = float(self.model.optimizer.learning_rate)
        self._tracker.log_metrics({**(logs or {}), "learning_rate": learning_rate}, step=epoch + 1)


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's own, with a grid of training images as the model receives them."""

    def __init__(
        self,
        log_dir: Path,
        *,
        train: Split,
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
        self._train = train
        self._images = images

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        if self._images and len(self._train.spec.input_shape) == 3:
            inputs, *_ = next(iter(self._train.epoch(0)))
            with self._train_writer.as_default():
                tf.summary.image("training images", grid(inputs[: self._images].numpy())[None], step=0)


def grid(images: np.ndarray) -> np.ndarray:
    """[n, height, width, channels] -> one image with about as many rows as columns, black where none is left."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    tiles = np.zeros((rows * columns, height, width, channels), images.dtype)
    tiles[:count] = images
    return tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)
