"""Metrics on integer labels [batch] and logits [batch, num_classes], in addition to Keras's own."""

from typing import Any

import keras

from experiments.losses import one_hot


@keras.saving.register_keras_serializable(package="experiments")
class SparseCategoricalAccuracy(keras.metrics.Metric):
    """Share of examples whose largest logit belongs to their label, weighted by the sample weights."""

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.correct = self.add_weight(initializer="zeros", name="correct")
        self.total = self.add_weight(initializer="zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: labels [batch] or [batch, 1]; sample weights [batch], [batch, 1], or None for 1 each."""
        predictions = keras.ops.argmax(y_pred, axis=-1)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), predictions.dtype)
        matches = keras.ops.cast(labels == predictions, self.dtype)
        if sample_weight is None:
            weights = keras.ops.ones_like(matches)
        else:
            weights = keras.ops.cast(keras.ops.reshape(sample_weight, (-1,)), self.dtype)
        self.correct.assign_add(keras.ops.sum(matches * weights))
        self.total.assign_add(keras.ops.sum(weights))

    def result(self) -> Any:
        return keras.ops.divide_no_nan(self.correct, self.total)


@keras.saving.register_keras_serializable(package="experiments")
class F1Score(keras.metrics.F1Score):
    """Keras's F1 score for integer labels and the predicted class, averaged over classes."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # Keras ignores examples whose largest score is exactly 0, which a logit may be and a probability is not.
        super().update_state(one_hot(y_true, y_pred), keras.ops.softmax(y_pred), sample_weight)
