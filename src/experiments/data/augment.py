"""Stateless augmentation: each example has its own random numbers, so its batch and position do not matter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import tensorflow as tf

from experiments.data.base import DataSpec
from experiments.errors import DataError

Change = Callable[[tf.Tensor], tf.Tensor]
_ANGLES = 4096  # steps of the table of angles of `Rotate`


class Augmentation(Protocol):
    @property
    def draws(self) -> int:
        """Number of uniform random numbers that one example needs."""
        ...

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        """Returns augmented images of the same shape and dtype.

        images: [batch, height, width, channels]; u: random numbers in [0, 1), float32 [batch, draws].
        """
        ...


@dataclass(frozen=True)
class Flip:
    """Mirrors half of the images along each selected axis."""

    horizontal: bool
    vertical: bool
    draws: int = 2

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        if self.horizontal:
            images = _changed(images, u[:, 0] < 0.5, [lambda chosen: tf.reverse(chosen, [2])])
        if self.vertical:
            images = _changed(images, u[:, 1] < 0.5, [lambda chosen: tf.reverse(chosen, [1])])
        return images


@dataclass(frozen=True)
class Rot90:
    """Rotates by 0, 90, 180 or 270 degrees, each for a quarter of the images."""

    draws: int = 1

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        if images.shape[1] != images.shape[2]:
            raise DataError(
                f"augment=rot90 turns square images only: received {images.shape[1]} x {images.shape[2]}. "
                "Set data.image_size to two equal numbers or leave rot90 out."
            )
        return _changed(
            images,
            u[:, 0] * 4.0,
            [
                lambda chosen: tf.reverse(tf.transpose(chosen, [0, 2, 1, 3]), [1]),
                lambda chosen: tf.reverse(chosen, [1, 2]),
                lambda chosen: tf.reverse(tf.transpose(chosen, [0, 2, 1, 3]), [2]),
            ],
        )


@dataclass(frozen=True)
class Rotate:
    """Rotates bilinearly around the centre by up to `degrees` either way; reflection fills the corners."""

    degrees: float
    draws: int = 1

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        # A lookup table, because the last bit of tf.sin depends on the position in the batch.
        angles = np.radians(np.linspace(-self.degrees, self.degrees, _ANGLES + 1))
        drawn = tf.cast(u[:, 0] * _ANGLES, tf.int32)
        sine, cosine = (tf.gather(table.astype(np.float32), drawn) for table in (np.sin(angles), np.cos(angles)))
        zero = tf.zeros_like(sine)
        height, width = images.shape[1], images.shape[2]
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        shift_x = middle_x - cosine * middle_x + sine * middle_y
        shift_y = middle_y - sine * middle_x - cosine * middle_y
        turned = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            # The source of each pixel is x' = cos x - sin y + shift_x, y' = sin x + cos y + shift_y.
            transforms=tf.stack([cosine, -sine, shift_x, sine, cosine, shift_y, zero, zero], axis=1),
            output_shape=(height, width),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
        return _restored(turned, images.dtype)


@dataclass(frozen=True)
class CropAndResize:
    """Crops a random window with sides of `scale` to 1 times those of the image, and resizes it bilinearly."""

    scale: float
    draws: int = 3

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        side = self.scale + (1.0 - self.scale) * u[:, 0]
        top, left = u[:, 1] * (1.0 - side), u[:, 2] * (1.0 - side)
        boxes = tf.stack([top, left, top + side, left + side], axis=1)
        each = tf.range(tf.shape(images)[0])
        return _restored(tf.image.crop_and_resize(images, boxes, each, images.shape[1:3]), images.dtype)


@dataclass(frozen=True)
class ColorJitter:
    """Shifts values by up to `brightness` of their range and multiplies contrast by 1 - `contrast` to 1 + `contrast`.

    Contrast is scaled around the middle of the range (0..255 for uint8, 0..`highest` otherwise), not around the mean of
    the image, because the rounding of a sum depends on the number of threads.
    """

    brightness: float
    contrast: float
    draws: int = 2
    highest: float = 1.0

    def __call__(self, images: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        highest = 255.0 if images.dtype.is_integer else self.highest
        sway = 2.0 * u - 1.0
        factor = 1.0 + sway[:, 1] * self.contrast
        shift = (1.0 - factor) * highest / 2 + sway[:, 0] * self.brightness * highest
        if images.dtype.is_integer:
            shift += 0.5  # rounds, because the cast below truncates
        factor, shift = (values[:, None, None, None] for values in (factor, shift))
        changed = tf.cast(images, tf.float32) * factor + shift
        return tf.cast(tf.clip_by_value(changed, 0.0, highest), images.dtype)


def augmented(images: tf.Tensor, u: tf.Tensor, augmentations: Sequence[Augmentation]) -> tf.Tensor:
    """Applies all augmentations in order; each uses its own columns of `u`, float32 [batch, total draws]."""
    column = 0
    for augmentation in augmentations:
        images = augmentation(images, u[:, column : column + augmentation.draws])
        column += augmentation.draws
    return images


def fitted(augmentations: Sequence[Augmentation], spec: DataSpec) -> tuple[Augmentation, ...]:
    """Returns the augmentations with the value range of `spec`; raises DataError if one does not fit its inputs."""
    if augmentations and len(spec.input_shape) != 3:
        raise DataError(
            f"augment needs images [height, width, channels]: received inputs of shape {list(spec.input_shape)}. "
            "Set augment=none."
        )
    image = tf.zeros((1, *spec.input_shape), spec.input_dtype)
    jitter = ColorJitter if spec.split_rules > 1 else ()  # earlier versions did not examine the range of floats
    ranged = tuple(
        replace(each, highest=spec.white("augment=color_jitter")) if isinstance(each, jitter) else each
        for each in augmentations
    )
    for augmentation in ranged:
        result = augmentation(image, tf.zeros((1, augmentation.draws)))
        if result.shape != image.shape or result.dtype != image.dtype:
            raise DataError(
                f"{type(augmentation).__name__} must keep shape and dtype of a batch: expected "
                f"{image.shape} {image.dtype.name}, received {result.shape} {result.dtype.name}. Correct its __call__."
            )
    return ranged


def _changed(images: tf.Tensor, choice: tf.Tensor, changes: Sequence[Change]) -> tf.Tensor:
    """Returns image i unchanged if int(choice[i]) is 0, else changed by changes[int(choice[i]) - 1].

    Each change is applied only to its own images, ten times as fast as changing all images and using tf.where.
    """
    number = tf.cast(choice, tf.int32)
    parts = tf.dynamic_partition(images, number, len(changes) + 1)
    places = tf.dynamic_partition(tf.range(tf.shape(images)[0]), number, len(changes) + 1)
    results = [parts[0], *(change(part) for change, part in zip(changes, parts[1:], strict=True))]
    return tf.ensure_shape(tf.dynamic_stitch(places, results), images.shape)


def _restored(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Converts floats back to `dtype`; rounds and clips them if it is uint8."""
    return tf.saturate_cast(tf.round(images), dtype) if dtype.is_integer else tf.cast(images, dtype)
