"""What a run needs to go on or to be used later, written to its `checkpoints/` folder."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments.errors import ExperimentError, TrackingError
from experiments.loops.evaluation import Predictions
from experiments.loops.observers import passes

BEST = "best"
PREDICTIONS = "validation_predictions.npz"


class Best(NamedTuple):
    """The best value of the monitored metric, and the epoch (from 0) that reached it."""

    value: float
    epoch: int


class TrainingState:
    """Everything that decides the next step, as one tf.train.Checkpoint.

    `model=` and `optimizer=` are there for the tutorial's plain restore; `extras` holds what they leave out in Keras 3:
    random seeds of layers, metrics and the counters. Variables are keyed by role and position, because Keras numbers
    names anew for each model it builds in a process. https://www.tensorflow.org/guide/checkpoint
    """

    def __init__(self, model: keras.Model, whole: keras.Model | None = None) -> None:
        """model: what trains; whole: the model it is a part of, where it is one."""
        whole = model if whole is None else whole
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        extras = {
            **_left_out("variable", whole, whole.variables),
            **_left_out("optimizer", model.optimizer, model.optimizer.variables),
            **{f"metric_{position}": variable.value for position, variable in enumerate(model.metrics_variables)},
        }
        self.checkpoint = tf.train.Checkpoint(
            model=whole,
            optimizer=model.optimizer,
            extras=tf.train.Checkpoint(epoch=self.epoch, step=self.step, **extras),
        )


class Checkpoints(keras.callbacks.Callback):
    """Keeps the newest checkpoints of the training state and the weights of the best epoch."""

    def __init__(
        self,
        directory: Path,
        *,
        whole: keras.Model | None = None,
        metric: str,
        mode: str,
        max_to_keep: int,
        name: str,
        every_n_steps: int | None,
        every_n_minutes: float | None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self._whole = whole
        self.best: Best | None = None
        self._metric, self._sign = metric, 1.0 if mode == "max" else -1.0
        self._max_to_keep, self._name = max_to_keep, name
        self._every_n_steps, self._every_n_minutes = every_n_steps, every_n_minutes
        self._epoch = self._begun = 0
        self._predictions: Predictions | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._state = TrainingState(self.model, self._whole)
        self._newest = tf.train.CheckpointManager(
            self._state.checkpoint, str(self.directory), self._max_to_keep, checkpoint_name=self._name
        )
        self._best_weights = tf.train.CheckpointManager(
            _weights(self._whole or self.model), str(self.directory / BEST), 1, checkpoint_name=BEST
        )
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._begun = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self._is_due(batch + 1):
            self._save(self._epoch, batch + 1)

    def on_validation_predictions(self, epoch: int, predictions: Predictions) -> None:  # noqa: ARG002
        self._predictions = predictions

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._save(epoch + 1, 0)
        value = (logs or {})[self._metric]
        if math.isfinite(value) and (self.best is None or self._sign * value > self._sign * self.best.value):
            self.best = Best(value, epoch)
            self._save_best(self.best)

    def restore_best(self, model: keras.Model) -> Best:
        """Puts the best epoch's weights into `model`."""
        if self.best is None:
            raise ExperimentError(
                f"{self._metric} was never a finite number, so there is no best epoch. "
                "Lower optimizer.learning_rate or set optimizer.global_clipnorm=1."
            )
        restore_weights(model, find(self.directory, BEST))
        return self.best

    def _is_due(self, step: int) -> bool:
        if passes(self._begun, step, self._every_n_steps):
            return True
        return self._every_n_minutes is not None and time.monotonic() - self._saved_at >= 60 * self._every_n_minutes

    def _save_best(self, best: Best) -> None:
        self._best_weights.save(checkpoint_number=best.epoch + 1)
        if self._predictions is not None:
            np.savez(self.directory / BEST / PREDICTIONS, **self._predictions._asdict())
        _write_json(self.directory / BEST / "best.json", {"metric": self._metric, **best._asdict()})

    def _save(self, epoch: int, step: int) -> None:
        self._state.epoch.assign(epoch)
        self._state.step.assign(step)
        self._newest.save(checkpoint_number=int(self.model.optimizer.iterations.numpy()))
        self._saved_at = time.monotonic()


def _weights(model: keras.Model) -> tf.train.Checkpoint:
    """A part of TrainingState's checkpoint. `model=` alone leaves out, in silence, layers kept in a list."""
    extras = _left_out("variable", model, model.variables)
    return tf.train.Checkpoint(model=model, extras=tf.train.Checkpoint(**extras))


def _left_out(role: str, owner: Any, variables: Sequence[keras.Variable]) -> dict[str, tf.Variable]:
    """Those of `variables` that TensorFlow does not reach from `owner`; the others would be stored twice.

    What a model's optimizer reaches does not count: a model that is only evaluated has none.
    """
    view = tf.train.TrackableView
    parts = [child for name, child in view.children(owner).items() if name != "optimizer"]
    reached = {id(node) for part in parts for node in view(part).descendants()}
    return {
        f"{role}_{position}": variable.value
        for position, variable in enumerate(variables)
        if id(variable) not in reached
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, also when the process ends in between."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def find(directory: Path, which: str) -> str:
    """The path prefix of checkpoint `best`, `latest` or a number, below a run's `checkpoints/` folder.

    Raises TrackingError that lists what there is.
    """
    newest = tf.train.get_checkpoint_state(str(directory))
    paths = {path.rsplit("-", 1)[-1]: path for path in (newest.all_model_checkpoint_paths if newest else [])}
    best = tf.train.latest_checkpoint(str(directory / BEST))
    named = {**paths, **({"latest": newest.model_checkpoint_path} if newest else {}), **({BEST: best} if best else {})}
    if which not in named:
        raise TrackingError(
            f"checkpoint={which} is not in {directory}: expected one of {', '.join(named) or 'none: it is empty'}. "
            "Choose one of these."
        )
    path: str = named[which]
    return path


def best_predictions(directory: Path) -> Predictions:
    """What the model of the best epoch said of the validation split, kept when that epoch was validated."""
    with np.load(directory / BEST / PREDICTIONS) as arrays:
        return Predictions(arrays["labels"], arrays["outputs"])


def restore_weights(model: keras.Model, path: str) -> None:
    """Reads the weights alone; a checkpoint that lacks any of the model's variables is an error."""
    _weights(model).restore(path).assert_existing_objects_matched().expect_partial()
