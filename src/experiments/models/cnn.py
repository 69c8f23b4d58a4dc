"""A small convolutional network, written as a subclassed model."""

from collections.abc import Sequence
from typing import Any

import keras

from experiments.errors import ModelError
from experiments.models.layers import ConvolutionBlock, ScalePixels


@keras.saving.register_keras_serializable(package="experiments")
class ConvolutionalNetwork(keras.Model):
    """Images [batch, height, width, channels] -> float32 logits [batch, num_classes].

    One `ConvolutionBlock` for each number in `filters`, then global average pooling, dropout and one dense layer.
    l2 weighs the squares of the convolution kernels in the loss; 0 leaves them out.
    """

    def __init__(
        self,
        filters: Sequence[int],
        dropout: float,
        batch_norm_momentum: float,
        l2: float,
        num_classes: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.arguments = {"filters": list(filters), "dropout": dropout, "batch_norm_momentum": batch_norm_momentum}
        self.arguments |= {"l2": l2, "num_classes": num_classes}
        self.scaling = ScalePixels()
        self.blocks = [ConvolutionBlock(count, batch_norm_momentum, l2) for count in filters]
        for number, block in enumerate(self.blocks):
            # A plain tf.train.Checkpoint(model=model) looks into no list.
            setattr(self, f"block_{number}", block)
        self.pooling = keras.layers.GlobalAveragePooling2D()
        self.dropout = keras.layers.Dropout(dropout)
        self.classifier = keras.layers.Dense(num_classes, dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for block in self.blocks:
            block.build(input_shape)
            input_shape = block.compute_output_shape(input_shape)
        self.classifier.build((None, input_shape[-1]))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        features = self.scaling(inputs)
        for block in self.blocks:
            features = block(features, training=training)
        return self.classifier(self.dropout(self.pooling(features), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}


def cnn(
    filters: Sequence[int],
    dropout: float,
    batch_norm_momentum: float,
    l2: float,
    input_shape: tuple[int, ...],
    num_classes: int,
) -> keras.Model:
    """A `ConvolutionalNetwork` for images; ModelError for anything else than (height, width, channels)."""
    if len(input_shape) != 3:
        raise ModelError(
            f"model=cnn expects images of shape (height, width, channels), received {tuple(input_shape)}. "
            "Set model=mlp."
        )
    return ConvolutionalNetwork(filters, dropout, batch_norm_momentum, l2, num_classes)
