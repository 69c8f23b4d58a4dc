"""A multilayer perceptron as a subclassed model with a custom layer."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from experiments.models.layers import FullyConnected, ScalePixels
from experiments.models.weights import initialized


@keras.saving.register_keras_serializable(package="experiments")
class MultilayerPerceptron(keras.Model):
    """Maps inputs of any shape [batch, ...], which are flattened, to float32 logits [batch, num_classes].

    Each number in `hidden_sizes` adds a ReLU layer followed by dropout. An empty list makes a linear classifier.
    """

    def __init__(self, hidden_sizes: Sequence[int], dropout: float, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arguments = {"hidden_sizes": list(hidden_sizes), "dropout": dropout, "num_classes": num_classes}
        self.scaling = ScalePixels()
        self.flatten = keras.layers.Flatten()
        self.hidden = [FullyConnected(units, activation="relu") for units in hidden_sizes]
        for number, layer in enumerate(self.hidden):
            # tf.train.Checkpoint(model=model) does not find layers in a list, so each is also an attribute.
            setattr(self, f"hidden_{number}", layer)
        self.dropouts = [keras.layers.Dropout(dropout) for _ in hidden_sizes]
        self.classifier = FullyConnected(num_classes, dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = math.prod(size for size in input_shape[1:] if size is not None)
        for layer in (*self.hidden, self.classifier):
            layer.build((None, features))
            features = layer.units
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        features = self.flatten(self.scaling(inputs))
        for hidden, dropout in zip(self.hidden, self.dropouts, strict=True):
            features = dropout(hidden(features), training=training)
        return self.classifier(features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}


def mlp(
    hidden_sizes: Sequence[int],
    dropout: float,
    input_shape: tuple[int, ...],
    num_classes: int,
    weights: str | None = None,
) -> keras.Model:
    """Returns a `MultilayerPerceptron`. `weights` is None or one of the sources of `load_weights`."""
    return initialized(MultilayerPerceptron(hidden_sizes, dropout, num_classes), weights, input_shape)
