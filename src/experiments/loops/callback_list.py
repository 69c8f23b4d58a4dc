"""A callback list for an entire run, shared by both loops."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from experiments.data.base import Split
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
        validation: Split,
        epochs: int,
        steps: int,
        start: Position,
    ) -> None:
        super().__init__(list(callbacks), add_history=True, model=model, epochs=epochs, steps=steps)
        self.first_step = 0
        self.weights: list[np.ndarray] = []
        over = start.stopped and start.step == 0  # At a later step, the end of the epoch is still to be run.
        self.epochs = range(start.epoch, start.epoch if over else epochs)
        self._start = start
        self._steps = steps
        self._validation = validation
        self._evaluation = evaluation_of(model)
        self._training = False

    @property
    def history(self) -> History:
        history: History = self._history.history
        return history

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self._training:
            self._training = True
            super().on_train_begin(logs)
            self._history.history = {name: list(values) for name, values in self._start.history.items()}

    def validate_alone(self, epoch: int) -> None:
        """Runs the end of an epoch whose steps were all done before the run was stopped."""
        self._evaluation.model.reset_metrics()
        self.on_epoch_begin(epoch)
        self.on_epoch_end(epoch, self._evaluation.model.get_metrics_result())

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Does nothing, because `fit` calls this at the end of each epoch. `finish` ends the training."""

    def finish(self) -> None:
        self._evaluation.model.optimizer.finalize_variable_values(self._evaluation.model.trainable_variables)
        super().on_train_end()

    def begin(self, epoch: int) -> int:
        """Returns the first step to train in `epoch`: the number of steps if the run was stopped during validation."""
        self.first_step = self._start.step if epoch == self._start.epoch else 0
        return self.first_step

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_begin(self.first_step + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        # With several steps per execution, Keras counts the last execution as full even if it is shorter.
        super().on_train_batch_end(min(self.first_step + batch, self._steps - 1), logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        with averaged(self._evaluation.model) as self.weights:
            validated, predictions = self._evaluation(self._validation, callbacks=self)
            for callback in self.callbacks:
                if isinstance(callback, PredictionsObserver):
                    callback.on_validation_predictions(epoch, predictions)
            super().on_epoch_end(epoch, {**(logs or {}), **{f"val_{name}": value for name, value in validated.items()}})
