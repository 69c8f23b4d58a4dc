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

    def __init__(self, model: keras.Model, full_model: keras.Model | None = None) -> None:
        """model: what trains; full_model: the model whose head it is, if it is one."""
        full_model = model if full_model is None else full_model
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        self._metrics = [variable.value for variable in model.metrics_variables]
        self._mirrored = [found for variable in everything(model, full_model) if len(found := replicas(variable)) > 1]
        extras = {
            **left_out("variable", full_model, full_model.variables),
            **left_out("optimizer", model.optimizer, model.optimizer.variables),
            **{f"metric_{position}": variable for position, variable in enumerate(self._metrics)},
        }
        self.checkpoint = tf.train.Checkpoint(
            model=full_model,
            optimizer=model.optimizer,
            extras=tf.train.Checkpoint(epoch=self.epoch, step=self.step, **extras),
        )

    def restore(self, path: str) -> None:
        """A checkpoint that lacks any of the variables is an error."""
        self.checkpoint.restore(path).assert_existing_objects_matched().expect_partial()

    def metric_values(self) -> list[np.ndarray]:
        """Copies of what the metrics have counted since they were last reset."""
        return values(self._metrics)

    def set_metric_values(self, kept: Sequence[np.ndarray]) -> None:
        assign(self._metrics, kept)

    def replica_values(self) -> list[list[np.ndarray] | None]:
        """Under a mirrored strategy, of each variable: what the devices have where they differ, else None.

        TensorFlow stores a mean or a sum of it.
        """
        found = [[each.numpy() for each in variable] for variable in self._mirrored]
        return [kept if any(not np.array_equal(kept[0], each) for each in kept[1:]) else None for kept in found]

    def set_replica_values(self, kept: Sequence[Sequence[np.ndarray] | None]) -> None:
        """On as many devices; on others the means and sums have to do."""
        for variables, found in zip(self._mirrored, kept, strict=False):
            if found is not None and len(found) == len(variables):
                assign(variables, found)


def everything(model: keras.Model, full_model: keras.Model) -> list[keras.Variable]:
    """model: what trains; full_model: the model whose head it is, or the same."""
    return [*full_model.variables, *model.optimizer.variables, *model.metrics_variables]


def replicas(variable: Any) -> Sequence[tf.Variable]:
    """One for each device: a mirrored strategy lets metrics and the statistics of batch normalization differ."""
    stored = variable.value if isinstance(variable, keras.Variable) else variable
    found: Sequence[tf.Variable] = stored.values if isinstance(stored, tf.distribute.DistributedValues) else [stored]
    return found


def values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Copies, of each replica by itself."""
    return [each.numpy() for variable in variables for each in replicas(variable)]


def assign(variables: Sequence[Any], kept: Sequence[np.ndarray]) -> None:
    """Puts back what `values` gave."""
    for variable, value in zip([each for one in variables for each in replicas(one)], kept, strict=True):
        variable.assign(value)


def weights(model: keras.Model) -> tf.train.Checkpoint:
    """A part of TrainingState's checkpoint. `model=` alone leaves out, in silence, layers kept in a list."""
    extras = left_out("variable", model, model.variables)
    return tf.train.Checkpoint(model=model, extras=tf.train.Checkpoint(**extras))


def restore_weights(model: keras.Model, path: str) -> None:
    """Reads the weights alone; a checkpoint that lacks any of the model's variables is an error."""
    weights(model).restore(path).assert_existing_objects_matched().expect_partial()


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
