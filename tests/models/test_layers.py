import sys

import keras
import numpy as np
import pytest

from experiments.models.architectures import architectures, find_architecture
from experiments.models.layers import ConvolutionBlock, FullyConnected, PreprocessForArchitecture, ScalePixels


def test_integers_are_scaled_and_floats_are_unchanged() -> None:
    layer = ScalePixels()
    np.testing.assert_array_equal(layer(np.array([[0, 51, 255]], np.uint8)), np.array([[0, 0.2, 1]], np.float32))
    np.testing.assert_array_equal(layer(np.array([[0, 51, 255]], np.float32)), [[0, 51, 255]])


@pytest.mark.parametrize("architecture", sorted(architectures()))
def test_preprocessing_equals_keras(architecture: str, images: np.ndarray) -> None:
    expected = sys.modules[find_architecture(architecture).__module__].preprocess_input(images.astype("float32"))
    np.testing.assert_allclose(PreprocessForArchitecture(architecture)(images), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetV2B0"])
def test_preprocessing_scales_floats_in_0_to_1(architecture: str, images: np.ndarray) -> None:
    expected = sys.modules[find_architecture(architecture).__module__].preprocess_input(images.astype("float32"))
    layer = PreprocessForArchitecture(architecture, scale=255.0)
    copy = PreprocessForArchitecture.from_config(layer.get_config())
    np.testing.assert_allclose(copy(images.astype("float32") / 255), expected, atol=1e-4)


def test_one_channel_is_repeated(images: np.ndarray) -> None:
    layer = PreprocessForArchitecture("ResNet50")
    np.testing.assert_array_equal(layer(images[..., :1]), layer(images[..., [0, 0, 0]]))


def test_preprocessing_keeps_float32_under_mixed_precision(images: np.ndarray, mixed_bfloat16: None) -> None:
    assert PreprocessForArchitecture("MobileNetV2")(images).dtype == "float32"


def test_fully_connected_equals_dense() -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    dense, custom = keras.layers.Dense(4, activation="relu"), FullyConnected(4, activation="relu")
    expected = dense(inputs)
    custom.build((None, 5))
    custom.set_weights(dense.get_weights())
    np.testing.assert_allclose(custom(inputs), expected, rtol=1e-6)


@pytest.mark.parametrize(("size", "pooled"), [(1, 1), (7, 4), (8, 4)])
def test_convolution_block_halves_image_and_rounds_up(size: int, pooled: int) -> None:
    block = ConvolutionBlock(filters=2, batch_norm_momentum=0.9, l2=0.0)
    assert block(np.zeros((1, size, size, 3), "float32")).shape == (1, pooled, pooled, 2)
    assert block.compute_output_shape((None, size, size, 3)) == (None, pooled, pooled, 2)
