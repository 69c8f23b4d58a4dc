"""The variables that decide the next step, as a TensorFlow checkpoint."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.files import literal
from experiments.loops.averages import averages


class TrainingState:
    """All variables that decide the next step, as one tf.train.Checkpoint.

    `model=` and `optimizer=` allow the tutorial's plain restore. `extras` contains the variables that they leave out in
    Keras 3: random seeds of layers, metrics and the counters. Its keys are role and position, because Keras gives a
    second model in the same process other names. https://www.tensorflow.org/guide/checkpoint
    """

    def __init__(self, model: keras.Model, full_model: keras.Model | None = None) -> None:
        """Takes the model that is trained, and the full model if the trained one is only its head."""
        full_model = model if full_model is None else full_model
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        # TensorFlow's own variables, because tf.train.Checkpoint does not track Keras metrics.
        self._metrics = [variable.value for variable in model.metrics_variables]
        self._mirrored = [found for variable in everything(model, full_model) if len(found := replicas(variable)) > 1]
        extras = {
            **left_out("variable", full_model, full_model.variables),
            **left_out("optimizer", model.optimizer, model.optimizer.variables),
            **{f"metric_{position}": variable for position, variable in enumerate(self._metrics)},
            # Keras's own objects, which the optimizer refers to as well, so that they are stored once.
            **{f"average_{position}": variable for position, variable in enumerate(averages(model))},
        }
        self.checkpoint = tf.train.Checkpoint(
            model=full_model,
            optimizer=model.optimizer,
            extras=tf.train.Checkpoint(epoch=self.epoch, step=self.step, **extras),
        )

    def restore(self, path: str) -> None:
        """Restores all variables. Raises AssertionError if the checkpoint lacks any of them."""
        with literal(path) as found:
            self.checkpoint.restore(found).assert_existing_objects_matched().expect_partial()

    def metric_values(self) -> list[np.ndarray]:
        """Returns copies of the metrics' variables: their counts since the last reset."""
        return values(self._metrics)

    def set_metric_values(self, kept: Sequence[np.ndarray]) -> None:
        assign(self._metrics, kept)

    def replica_values(self) -> list[list[np.ndarray] | None]:
        """Returns the values of each mirrored variable on all devices; None if they are equal.

        TensorFlow stores only their mean or sum.
        """
        found = [[each.numpy() for each in variable] for variable in self._mirrored]
        return [kept if any(not np.array_equal(kept[0], each) for each in kept[1:]) else None for kept in found]

    def set_replica_values(self, kept: Sequence[Sequence[np.ndarray] | None]) -> None:
        """Assigns the values of each device. On another number of devices, the restored means and sums remain."""
        # Not strict: on one device, no variables are mirrored.
        for variables, found in zip(self._mirrored, kept, strict=False):
            if found is not None and len(found) == len(variables):
                assign(variables, found)


def everything(model: keras.Model, full_model: keras.Model) -> list[keras.Variable]:
    """Returns all variables of model, optimizer and metrics. `model` is the full model or its head."""
    return [*full_model.variables, *model.optimizer.variables, *model.metrics_variables]


def replicas(variable: Any) -> Sequence[tf.Variable]:
    """Returns the variable of each device. Metrics and batch-norm statistics may differ between mirrored devices."""
    stored = variable.value if isinstance(variable, keras.Variable) else variable
    found: Sequence[tf.Variable] = stored.values if isinstance(stored, tf.distribute.DistributedValues) else [stored]
    return found


def values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Returns copies of the values, one for each device of each variable."""
    return [each.numpy() for variable in variables for each in replicas(variable)]


def assign(variables: Sequence[Any], kept: Sequence[np.ndarray]) -> None:
    """Assigns the arrays returned by `values`."""
    for variable, value in zip([each for one in variables for each in replicas(one)], kept, strict=True):
        variable.assign(value)


def weights(model: keras.Model) -> tf.train.Checkpoint:
    """Returns the model's part of TrainingState's checkpoint. Only `model=` would silently omit layers in a list."""
    extras = left_out("variable", model, model.variables)
    return tf.train.Checkpoint(model=tf.train.Checkpoint(**_parts(model)), extras=tf.train.Checkpoint(**extras))


def restore_weights(model: keras.Model, path: str) -> None:
    """Restores only the model's variables; raises AssertionError if any is absent. Prefers averages to weights."""
    names = [f"extras/average_{place}/.ATTRIBUTES/VARIABLE_VALUE" for place in range(len(model.trainable_variables))]
    with literal(path) as found:
        weights(model).restore(found).assert_existing_objects_matched().expect_partial()
        reader = tf.train.load_checkpoint(found)
        kept = [reader.get_tensor(name) for name in names if reader.has_tensor(name)]
    # Averages are zeros until the first update, which mixed_float16 skips while its loss scale is too large.
    if any(map(np.any, kept)):
        assign(model.trainable_variables, kept)


def left_out(role: str, owner: Any, variables: Sequence[keras.Variable]) -> dict[str, tf.Variable]:
    """Returns the `variables` that TensorFlow does not reach from `owner`; the others would be stored twice."""
    reached = {id(node) for part in _parts(owner).values() for node in tf.train.TrackableView(part).descendants()}
    return {f"{role}_{place}": each.value for place, each in enumerate(variables) if id(each) not in reached}


def _parts(owner: Any) -> dict[str, Any]:
    """Returns the tracked attributes of a model but its optimizer, which a model that is only evaluated does not have.

    The state of Adam is twice as large as the weights.
    """
    return {name: child for name, child in tf.train.TrackableView.children(owner).items() if name != "optimizer"}
