"""A small convolutional network as a subclassed model."""

from collections.abc import Sequence
from typing import Any

import keras

from experiments.errors import ModelError
from experiments.models.layers import ConvolutionBlock, ScalePixels
from experiments.models.weights import initialized


@keras.saving.register_keras_serializable(package="experiments")
class ConvolutionalNetwork(keras.Model):
    """Maps images [batch, height, width, channels] to float32 logits [batch, num_classes].

    The layers are a `ConvolutionBlock` for each number in `filters`, global average pooling, dropout and a dense layer.
    `l2` is the weight of the squared convolution kernels in the loss; 0 omits them.
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
            # tf.train.Checkpoint(model=model) does not find layers in a list, so each is also an attribute.
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
    weights: str | None = None,
) -> keras.Model:
    """Returns a `ConvolutionalNetwork`. `weights` is None or one of the sources of `load_weights`.

    Raises ModelError if `input_shape` is not (height, width, channels).
    """
    if len(input_shape) != 3:
        remedy = ", or save grey images as images[..., np.newaxis]" if len(input_shape) == 2 else ""
        raise ModelError(
            f"model=cnn expects images of shape (height, width, channels), received {tuple(input_shape)}. "
            f"Set model=mlp{remedy}."
        )
    model = ConvolutionalNetwork(filters, dropout, batch_norm_momentum, l2, num_classes)
    return initialized(model, weights, input_shape)
