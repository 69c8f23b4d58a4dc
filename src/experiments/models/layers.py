"""Custom layers, registered so that a saved model finds them by name."""

import sys
from collections.abc import Callable
from typing import Any

import keras

from experiments.models.architectures import find_architecture


@keras.saving.register_keras_serializable(package="experiments")
class ScalePixels(keras.layers.Layer):
    """Scales integers 0..255 to floats 0..1. Leaves floats unchanged, because their range is unknown."""

    def call(self, inputs: Any) -> Any:
        if keras.backend.is_int_dtype(inputs.dtype):
            return keras.ops.cast(inputs, "float32") / 255.0
        return inputs


@keras.saving.register_keras_serializable(package="experiments")
class PreprocessForArchitecture(keras.layers.Layer):
    """Converts pixels to the inputs on which `architecture` of `keras.applications` was trained.

    [batch, height, width, 1 or 3] in any dtype -> [batch, height, width, 3] float32; one channel is repeated.
    `scale` brings the pixels to 0..255. Calls Keras's own `preprocess_input`, in float32 under every precision, because
    bfloat16 would round the result.
    """

    def __init__(self, architecture: str, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.architecture, self.scale = architecture, scale
        module = sys.modules[find_architecture(architecture).__module__]
        self._preprocess_input: Callable[[Any], Any] = module.preprocess_input

    def call(self, inputs: Any) -> Any:
        images = keras.ops.cast(inputs, "float32") * self.scale
        if images.shape[-1] == 1:
            images = keras.ops.repeat(images, 3, axis=-1)
        return self._preprocess_input(images)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "architecture": self.architecture, "scale": self.scale}


@keras.saving.register_keras_serializable(package="experiments")
class FullyConnected(keras.layers.Layer):
    """Computes activation(inputs @ kernel + bias): [..., features] -> [..., units]."""

    def __init__(self, units: int, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        return self.activation(keras.ops.matmul(inputs, self.kernel) + self.bias)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}


@keras.saving.register_keras_serializable(package="experiments")
class ConvolutionBlock(keras.layers.Layer):
    """3x3 convolution, batch normalization, ReLU, 2x2 max pooling.

    [batch, height, width, channels] -> [batch, ceil(height / 2), ceil(width / 2), filters]. Pooling uses
    padding, so that any number of blocks can follow each other, down to 1x1 pixels.
    """

    def __init__(self, filters: int, batch_norm_momentum: float, l2: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.batch_norm_momentum, self.l2 = filters, batch_norm_momentum, l2
        regularizer = keras.regularizers.L2(l2) if l2 > 0 else None
        # No bias, because batch normalization adds an offset.
        self.convolution = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_regularizer=regularizer
        )
        self.normalization = keras.layers.BatchNormalization(momentum=batch_norm_momentum)
        self.pooling = keras.layers.MaxPooling2D(2, padding="same")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        features = self.normalization(self.convolution(inputs), training=training)
        return self.pooling(keras.ops.relu(features))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape: tuple[int | None, ...] = self.pooling.compute_output_shape(
            self.convolution.compute_output_shape(input_shape)
        )
        return shape

    def get_config(self) -> dict[str, Any]:
        config = {"filters": self.filters, "batch_norm_momentum": self.batch_norm_momentum, "l2": self.l2}
        return {**super().get_config(), **config}
