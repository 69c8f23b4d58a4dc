"""A callback list for an entire run, shared by both loops."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from experiments.data.base import Splits
from experiments.loops.averages import averaged
from experiments.loops.base import History, Position
from experiments.loops.evaluation import Predictions, evaluation_of

Logs = Mapping[str, Any]


def passes(begun: int, done: int, every_n_steps: int | None) -> bool:
    """Returns True if a multiple of `every_n_steps` lies in (begun, done]. An execution may contain several steps."""
    return every_n_steps is not None and done // every_n_steps > begun // every_n_steps


@runtime_checkable
class PredictionsObserver(Protocol):
    """A callback that receives the predictions for the validation split, just before `on_epoch_end`."""

    def on_validation_predictions(self, epoch: int, predictions: Predictions) -> None: ...


class Observers(keras.callbacks.CallbackList):
    """Begins and ends training once, although `fit` is called once per epoch, and validates at the end of each epoch.

    Validation happens here and not in `fit`, so that both loops share it and predictions need no second pass.
    Moving averages, if any, replace the weights from validation to `on_epoch_end`; `weights` are copies of these.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        model: keras.Model,
        splits: Splits,
        epochs: int,
        start: Position,
    ) -> None:
        self._steps = splits.train.steps_per_epoch
        super().__init__(list(callbacks), add_history=True, model=model, epochs=epochs, steps=self._steps)
        self.first_step = 0
        self.weights: list[np.ndarray] = []
        over = start.stopped and start.step == 0  # At a later step, the end of the epoch is still to be run.
        self._epochs = range(start.epoch, start.epoch if over else epochs)
        self._start = start
        self._splits = splits
        self._evaluation = evaluation_of(model)
        self._training = False

    @property
    def history(self) -> History:
        history: History = self._history.history
        return history

    def training(self) -> Iterator[tuple[int, tf.data.Dataset]]:
        """Begins the training, yields each epoch that has steps to do, with the batches of these, and ends it."""
        model = self._evaluation.model
        model.stop_training = self._start.stopped
        self.on_train_begin()
        for epoch in self._epochs:
            self.first_step = self._start.step if epoch == self._start.epoch else 0
            if self.first_step < self._steps:
                yield epoch, self._splits.train.epoch(epoch, first_step=self.first_step)
            else:  # The run was stopped during validation.
                model.reset_metrics()
                self.on_epoch_begin(epoch)
                self.on_epoch_end(epoch, model.get_metrics_result())
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_variables)
        super().on_train_end()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._training = True
            super().on_train_begin(logs)
            self._history.history = {name: list(values) for name, values in self._start.history.items()}

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Does nothing, because `fit` calls this at the end of each epoch."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_begin(self.first_step + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        # With several steps per execution, Keras counts the last execution as full even if it is shorter.
        super().on_train_batch_end(min(self.first_step + batch, self._steps - 1), logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        with averaged(self._evaluation.model) as self.weights:
            validated, predictions = self._evaluation(self._splits.validation, callbacks=self)
            for callback in self.callbacks:
                if isinstance(callback, PredictionsObserver):
                    callback.on_validation_predictions(epoch, predictions)
            super().on_epoch_end(epoch, {**(logs or {}), **{f"val_{name}": value for name, value in validated.items()}})
