"""Losses on integer labels and logits. Losses that need one-hot labels create them.

All losses take labels [batch] or [batch, 1] and logits [batch, num_classes]. Sparse cross-entropy is Keras's own loss.
"""

from typing import Any

import keras


def one_hot(labels: Any, logits: Any) -> Any:
    """Returns labels as one-hot rows [batch, num_classes] with the number of classes and the dtype of `logits`."""
    # Keras passes labels to a loss as floats, which represent integers exactly up to 2**24.
    indices = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
    return keras.ops.one_hot(indices, logits.shape[-1], dtype=logits.dtype)


@keras.saving.register_keras_serializable(package="experiments")
class CategoricalCrossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy with smoothed labels, which have the value 1 - label_smoothing + label_smoothing / num_classes."""

    def __init__(
        self, label_smoothing: float, from_logits: bool = True, name: str = "categorical_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(from_logits=from_logits, label_smoothing=label_smoothing, name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(one_hot(y_true, y_pred), y_pred)


@keras.saving.register_keras_serializable(package="experiments")
class MeanSquaredError(keras.losses.MeanSquaredError):
    """Mean squared error of the probabilities against one-hot labels: the Brier score divided by num_classes."""

    from_logits = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(one_hot(y_true, y_pred), keras.ops.softmax(y_pred))
