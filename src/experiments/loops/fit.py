"""The training loop that calls `model.fit` once per epoch, so that each epoch can begin at any step."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from experiments.data.base import Splits
from experiments.loops.base import History, Position
from experiments.loops.callback_list import Observers


@dataclass(frozen=True)
class FitLoop:
    """Calls `model.fit` for each epoch. One call would use the batch count of a short first epoch for all epochs."""

    steps_per_execution: int
    jit_compile: bool

    def __call__(
        self,
        model: keras.Model,
        splits: Splits,
        *,
        epochs: int,
        start: Position,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> History:
        raw = RawWeights()
        observers = Observers(
            [*callbacks, raw],
            model=model,
            validation=splits.validation,
            epochs=epochs,
            steps=splits.train.steps_per_epoch,
            start=start,
        )
        model.stop_training = start.stopped
        observers.on_train_begin()
        for epoch in observers.epochs:
            self._train_epoch(model, splits, epoch, observers)
            if model.stop_training:
                break
            if epoch + 1 < epochs:
                raw.restore()
        # Every `fit` ends with this call. If no epoch was left to train, there was no `fit`.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        observers.finish()
        return observers.history

    def _train_epoch(self, model: keras.Model, splits: Splits, epoch: int, observers: Observers) -> None:
        first_step = observers.begin(epoch)
        if first_step == splits.train.steps_per_epoch:
            observers.validate_alone(epoch)
            return
        batches = splits.train.epoch(epoch, first_step=first_step)
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, callbacks=observers, verbose=0)


class RawWeights(keras.callbacks.Callback):
    """Restores the raw weights after a `fit` with EMA, which ends by overwriting the weights with their averages.

    Keras does this in `optimizer.finalize_variable_values`. It must happen only after the last epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self.model.optimizer.use_ema:
            self._weights = [variable.numpy() for variable in self.model.trainable_variables]

    def restore(self) -> None:
        # Not strict: without EMA, no weights were saved.
        for variable, value in zip(self.model.trainable_variables, self._weights, strict=False):
            variable.assign(value)
