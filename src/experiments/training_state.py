"""The variables that decide the next step, as TensorFlow stores them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class TrainingState:
    """Everything in variables that decides the next step, as one tf.train.Checkpoint.

    `model=` and `optimizer=` are there for the tutorial's plain restore; `extras` holds what they leave out in Keras 3:
    random seeds of layers, metrics and the counters. Variables are keyed by role and position, because Keras numbers
    names anew for each model it builds in a process. https://www.tensorflow.org/guide/checkpoint
    """

    def __init__(self, model: keras.Model, whole: keras.Model | None = None) -> None:
        """model: what trains; whole: the model it is a part of, where it is one."""
        whole = model if whole is None else whole
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        self._metrics = [variable.value for variable in model.metrics_variables]
        extras = {
            **left_out("variable", whole, whole.variables),
            **left_out("optimizer", model.optimizer, model.optimizer.variables),
            **{f"metric_{position}": variable for position, variable in enumerate(self._metrics)},
        }
        self.checkpoint = tf.train.Checkpoint(
            model=whole,
            optimizer=model.optimizer,
            extras=tf.train.Checkpoint(epoch=self.epoch, step=self.step, **extras),
        )

    def restore(self, path: str) -> None:
        """A checkpoint that lacks any of the variables is an error."""
        self.checkpoint.restore(path).assert_existing_objects_matched().expect_partial()

    def metric_values(self) -> list[np.ndarray]:
        """Copies of what the metrics have counted since they were last reset."""
        return [variable.numpy() for variable in self._metrics]

    def set_metric_values(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self._metrics, values, strict=True):
            variable.assign(value)


def weights(model: keras.Model) -> tf.train.Checkpoint:
    """A part of TrainingState's checkpoint. `model=` alone leaves out, in silence, layers kept in a list."""
    extras = left_out("variable", model, model.variables)
    return tf.train.Checkpoint(model=model, extras=tf.train.Checkpoint(**extras))


def left_out(role: str, owner: Any, variables: Sequence[keras.Variable]) -> dict[str, tf.Variable]:
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
