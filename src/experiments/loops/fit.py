"""The training loop that calls `model.fit` once per epoch, so that each epoch can begin at any step."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

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
        observers = Observers(callbacks, model=model, splits=splits, epochs=epochs, start=start)
        for epoch, batches in observers.training():
            model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, callbacks=observers, verbose=0)
            # Every `fit` ends by overwriting weights with their averages, which only the end of the training must do.
            # Not strict: without averages, no weights were copied.
            for variable, value in zip(model.trainable_variables, observers.weights, strict=False):
                variable.assign(value)
        return observers.history
