"""Augmentations compared with NumPy and Pillow, for uint8 and float images and any batch size."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data import ColorJitter, CropAndResize, Flip, Rot90, Rotate, from_arrays
from experiments.data.base import using_split_rules
from experiments.errors import DataError

ALL = [Flip(True, True), Rot90(), Rotate(30), CropAndResize(0.5), ColorJitter(0.3, 0.4)]


def batch(dtype: str, count: int = 8) -> Any:
    values = np.random.default_rng(0).random((count, 6, 6, 3), np.float32)
    return (values * 255).round().astype(np.uint8) if dtype == "uint8" else values


def uniform(count: int, draws: int) -> Any:
    return np.random.default_rng(1).random((count, draws), np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
def test_augmentation_keeps_shape_dtype_and_range_for_any_batch(augmentation: Any, dtype: str) -> None:
    images, u = batch(dtype), uniform(8, augmentation.draws)
    together = augmentation(tf.constant(images), tf.constant(u)).numpy()
    assert (together.shape, together.dtype) == (images.shape, images.dtype)
    assert together.min() >= 0
    assert together.max() <= (255 if dtype == "uint8" else 1 + 1e-6)
    for index in range(8):
        single = augmentation(tf.constant(images[index : index + 1]), tf.constant(u[index : index + 1])).numpy()
        np.testing.assert_array_equal(single[0], together[index])


def test_rot90_equals_numpy() -> None:
    images = batch("uint8", 4)
    turned = Rot90()(tf.constant(images), tf.constant([[0.1], [0.3], [0.6], [0.9]])).numpy()
    for turns, (image, result) in enumerate(zip(images, turned, strict=True)):
        np.testing.assert_array_equal(result, np.rot90(image, turns))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rotate_uses_the_drawn_angle(dtype: str) -> None:
    images = batch(dtype, 3)
    turned = Rotate(90)(tf.constant(images), tf.constant([[0.0], [0.5], [1.0]])).numpy()
    for result, turns, image in zip(turned, (-1, 0, 1), images, strict=True):
        np.testing.assert_allclose(result, np.rot90(image, turns), atol=1e-4 if dtype == "float32" else 1)


def test_rotate_agrees_with_pillow_inside_the_border() -> None:
    image = np.asarray(Image.fromarray(batch("uint8", 1)[0]).resize((41, 31), Image.Resampling.BICUBIC))
    turned = Rotate(20)(tf.constant(image[None]), tf.constant([[1.0]])).numpy()[0]
    expected = np.asarray(Image.fromarray(image).rotate(20, Image.Resampling.BILINEAR))
    difference = np.abs(turned.astype(int) - expected)[10:-10, 10:-10]
    assert difference.max() <= 2


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_flip_mirrors_selected_axes(horizontal: bool, vertical: bool) -> None:
    images = batch("uint8", 2)
    flipped = Flip(horizontal, vertical)(tf.constant(images), tf.constant([[0.1, 0.1], [0.9, 0.9]])).numpy()
    axes = tuple(axis for axis, wanted in ((1, horizontal), (0, vertical)) if wanted)
    np.testing.assert_array_equal(flipped[0], np.flip(images[0], axes))
    np.testing.assert_array_equal(flipped[1], images[1])


def test_crop_of_full_image_changes_nothing() -> None:
    images = batch("uint8")
    np.testing.assert_array_equal(CropAndResize(1.0)(tf.constant(images), tf.constant(uniform(8, 3))), images)


def test_color_jitter_changes_brightness_and_contrast() -> None:
    image = np.full((1, 2, 2, 1), 100, np.uint8)
    brighter = ColorJitter(0.2, 0.0)(tf.constant(image), tf.constant([[1.0, 0.5]])).numpy()
    assert brighter.max() == 151
    flatter = ColorJitter(0.0, 0.5)(tf.constant(image), tf.constant([[0.5, 0.0]])).numpy()
    assert flatter.max() == 114


@pytest.mark.parametrize(("scale", "highest"), [(1, 255.0), (1 / 255, 1.0)])
def test_color_jitter_keeps_the_range_of_floats(array_options: dict[str, Any], scale: float, highest: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 3, 1)) * scale
    images[0, 0, 0] = highest
    options = {**array_options, "shuffle": False, "validation_fraction": 1, "batch_size": 40}
    split = from_arrays(
        (images.astype(np.float32), np.arange(40) % 2), **{**options, "augment": [ColorJitter(0.2, 0.4)]}
    )
    ((found, _),) = split.train.epoch(3)
    sway = 2 * np.random.default_rng([0, 3, 1]).random((40, 2), np.float32)[:, :, None, None, None] - 1
    brightness, contrast = 0.2 * highest * sway[:, 0], 1 + 0.4 * sway[:, 1]
    expected = (images - highest / 2) * contrast + highest / 2 + brightness
    np.testing.assert_allclose(found, expected.clip(0, highest), atol=1e-4 * highest)


@pytest.mark.parametrize("images", [np.arange(24) / 7 - 1, np.arange(24) * 0.6, np.arange(24) * 99])
def test_color_jitter_refuses_an_unknown_range(array_options: dict[str, Any], images: np.ndarray) -> None:
    """Contrast and clipping need the values of black and white."""
    arrays = (images.reshape(6, 2, 2, 1), np.arange(6) % 2)
    assert from_arrays(arrays, **{**array_options, "augment": [Flip(True, False)]}).train.spec.value_range == "other"
    with pytest.raises(DataError) as raised:
        from_arrays(arrays, **{**array_options, "augment": [ColorJitter(0.2, 0.4)]})
    assert str(raised.value) == (
        "augment=color_jitter needs images [height, width, channels] with values in 0..255 or 0..1: received "
        "inputs [2, 2, 1] of float32 in the range other. Convert the inputs, best to uint8, or do without "
        "augment=color_jitter."
    )
    with using_split_rules(1):  # a resumed run of a version that did not examine the range
        from_arrays(arrays, **{**array_options, "augment": [ColorJitter(0.2, 0.4)]})


def test_rot90_refuses_non_square_images(array_options: dict[str, Any]) -> None:
    arrays = (np.zeros((6, 4, 5, 3), np.uint8), np.arange(6) % 2)
    with pytest.raises(DataError) as raised:
        from_arrays(arrays, **{**array_options, "augment": [Rot90()]})
    assert str(raised.value) == (
        "augment=rot90 turns square images only: received 4 x 5. Set data.image_size to two equal numbers or leave "
        "rot90 out."
    )


def test_augmentation_refuses_inputs_that_are_not_images(array_options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"received inputs of shape \[7\]\. Set augment=none\."):
        from_arrays((np.zeros((6, 7)), np.arange(6) % 2), **{**array_options, "augment": [Flip(True, False)]})


@dataclass(frozen=True)
class Shrink:
    draws: int = 0

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        del u
        return images[:, 1:]


def test_custom_augmentation_that_changes_shape_is_named(array_options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"Shrink must keep shape and dtype .* received \(1, 3, 4, 1\) uint8"):
        from_arrays((np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2), **{**array_options, "augment": [Shrink()]})
