"""Metrics on integer labels [batch] and logits [batch, num_classes], in addition to Keras's own."""

from typing import Any

import keras

from experiments.losses import one_hot


@keras.saving.register_keras_serializable(package="experiments")
class SparseCategoricalAccuracy(keras.metrics.Mean):
    """Share of examples whose largest output belongs to their label, weighted by the sample weights."""

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: labels [batch] or [batch, 1]; sample weights [batch], [batch, 1], or None for 1 each."""
        predictions = keras.ops.argmax(y_pred, axis=-1)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), predictions.dtype)
        super().update_state(keras.ops.cast(labels == predictions, self.dtype), sample_weight)


@keras.saving.register_keras_serializable(package="experiments")
class F1Score(keras.metrics.F1Score):
    """Keras's F1 score for integer labels and the class with the largest output.

    `average="macro"` is the mean over classes that occur or are predicted, as in scikit-learn. Keras's own mean counts
    all other classes as 0.
    """

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # Keras would count each class with the largest output if there are several, and none if that output is 0.
        predicted = one_hot(keras.ops.argmax(y_pred, axis=-1), y_pred)
        weights = None if sample_weight is None else keras.ops.reshape(sample_weight, (-1,))
        super().update_state(one_hot(y_true, y_pred), predicted, weights)

    def result(self) -> Any:
        if self.average != "macro":
            return super().result()
        counts = 2 * self.true_positives + self.false_positives + self.false_negatives
        scores = keras.ops.divide_no_nan(2 * self.true_positives, counts)
        return keras.ops.divide_no_nan(keras.ops.sum(scores), keras.ops.sum(keras.ops.cast(counts > 0, self.dtype)))
