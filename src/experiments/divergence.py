"""Stops a run whose loss has left the numbers that anything can be learned from."""

import math
from collections.abc import Mapping
from pathlib import Path

import keras

from experiments.checkpoint_list import newest_finite
from experiments.checkpoint_names import last_checkpoint
from experiments.errors import TrainingError


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
