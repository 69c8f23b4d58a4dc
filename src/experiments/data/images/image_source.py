"""Image files as a source of examples, and the decoder that training and prediction share."""

import hashlib
import os
import platform
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.cli.progress_bar import progress
from experiments.data.base import DataSpec, split_rules
from experiments.data.cache.pack import PackSpec
from experiments.data.images.scan import Damage, Record
from experiments.data.pipeline import Indices, side_effect
from experiments.errors import DataError, first_few

_VERSION = 1  # part of a pack's key; must be raised with every change of the decoder's output

# Indexed by EXIF orientation: whether rows and columns are reversed, after 5 to 8 were transposed.
_BACKWARDS = tuple((number in {3, 4, 7, 8}, number in {2, 3, 6, 7}) for number in range(9))
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG; the sum of 1 keeps grey images unchanged


@dataclass(frozen=True)
class Decoder:
    """Decodes bytes to upright uint8 [height, width, channels], resized bilinearly like Keras's image loader.

    antialias: smooths before shrinking. It is slower, and most published weights were trained without it.
    channels: 3 for RGB, 1 for grey.
    """

    image_size: tuple[int, int]
    channels: int
    antialias: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.image_size, self.channels)

    @property
    def identity(self) -> dict[str, Any]:
        """Values besides the file that determine the pixels; TensorFlow's version fixes its decoding libraries."""
        return {**asdict(self), "decoder": _VERSION, "tensorflow": tf.__version__, "machine": platform.machine()}

    def __call__(self, content: tf.Tensor, orientation: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the pixels of encoded `content`.

        orientation: EXIF orientation from 1 to 8, which TensorFlow does not read itself; None if upright.
        Raises tf.errors.InvalidArgumentError if the bytes are not an image.
        """
        pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
        if orientation is not None:
            stored = pixels
            pixels = tf.cond(orientation > 1, lambda: upright(stored, orientation), lambda: stored)
        resized = tf.image.resize(pixels, self.image_size, method="bilinear", antialias=self.antialias)
        if self.channels == 1:
            resized = tf.reduce_sum(resized * _LUMA, axis=-1, keepdims=True)
        # A weighted mean stays within 0..255, so the slower tf.saturate_cast is not needed.
        return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), self.shape)

    def read(self, path: tf.Tensor, orientation: tf.Tensor | None = None) -> tf.Tensor:
        return self(tf.io.read_file(path), orientation)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors [height, width, channels] according to the EXIF `orientation` from 1 to 8."""
    mirrored = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    backwards = tf.gather(_BACKWARDS, orientation)  # for rows and columns
    return tf.reverse(mirrored, tf.where(backwards)[:, 0])


@dataclass(frozen=True)
class FileSource:
    """Source of images that are decoded each time they are requested; `left_out` gives reasons by path."""

    root: Path
    records: tuple[Record, ...]
    decoder: Decoder
    class_names: tuple[str, ...]
    skipped: tuple[Damage, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    split_rules: int = field(default_factory=split_rules)

    @cached_property
    def spec(self) -> DataSpec:
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return DataSpec(
            input_shape=self.decoder.shape,
            input_dtype="uint8",
            num_classes=len(self.class_names),
            class_names=self.class_names,
            num_examples=len(self.records),
            digest=digest(self.records),
            class_counts=tuple(counts.tolist()),
            source=str(self.root),
            skipped=tuple(map(str, self.skipped)),
            split_rules=self.split_rules,
        )

    @cached_property
    def labels(self) -> Indices:
        return np.array([record.label for record in self.records], np.int64)

    @cached_property
    def names(self) -> Sequence[str]:
        return [str(self.root / record.path) for record in self.records]

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        paths = tf.constant([self.names[index] for index in indices], tf.string)
        orientations = np.array([self.records[index].header.orientation for index in indices], np.int32)
        # Testing the orientation costs a tenth of decoding, so it is left out if all images are upright.
        turned = bool((orientations != 1).any())
        each = tf.data.Dataset.from_tensor_slices((paths, orientations) if turned else (paths,))
        read = tf.autograph.experimental.do_not_convert(self.decoder.read)
        images = each.map(read, num_parallel_calls=num_parallel_calls, deterministic=True)
        numbers = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        return tf.data.Dataset.zip(numbers, images.batch(batch_size)).map(
            self._checked, num_parallel_calls=num_parallel_calls, deterministic=True
        )

    @tf.autograph.experimental.do_not_convert
    def _checked(self, positions: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Checks after decoding that files are unchanged since the scan: cached pixels must match the file's hash."""

        def check(numbers: Indices) -> None:
            changed = self.changed(numbers.tolist())
            if changed:
                raise ValueError(f"changed since the scan: {first_few(changed)}")

        return side_effect(check, [positions], images)

    def changed(self, positions: Iterable[int]) -> list[str]:
        """Returns the files whose size or modification time differs from the scan, without those that are deleted."""
        found = []
        for number in positions:
            state = self.records[number].state
            with suppress(FileNotFoundError):
                now = os.stat(self.names[number])  # noqa: PTH116 -- called for every image of an epoch
                if (now.st_size, now.st_mtime_ns) != (state.num_bytes, state.modified_ns):
                    found.append(self.names[number])
        return found

    def read_error(self) -> DataError | None:
        changed = self.changed(range(len(self.records)))
        if not changed:
            return None
        count = "1 image" if len(changed) == 1 else f"{len(changed)} images"
        return DataError(
            f"{count} of {len(self.records)} changed during training: {first_few(changed)}. Expected files that stay "
            "unchanged until the run ends. Start again when no other program writes to the folder."
        )

    def contents(self, split: str) -> PackSpec:
        """Describes a pack of the decoded images; `split` is only shown to users."""
        in_order = hashlib.sha256("".join(record.sha256 for record in self.records).encode()).hexdigest()
        return PackSpec(
            identity={"images": in_order, **self.decoder.identity},
            shape=self.decoder.shape,
            dtype="uint8",
            labels=self.labels,
            about={"source": str(self.root.absolute()), "split": split},
        )

    def unreadable_examples(self) -> list[str]:
        unreadable = []
        with ThreadPoolExecutor() as readers, progress("Looking for corrupt images", len(self.names)) as advance:
            for name, fails in zip(self.names, readers.map(self._fails, self.names, self.records), strict=True):
                advance(1)
                if fails:
                    unreadable.append(name)
        return unreadable

    def _fails(self, name: str, record: Record) -> bool:
        try:
            self.decoder.read(tf.constant(name), tf.constant(record.header.orientation))
        except tf.errors.OpError:
            return True
        return False


def digest(records: Sequence[Record]) -> str:
    """SHA-256 over path, content and class of every image, independent of file system and order of `records`."""
    lines = sorted(
        f"{unicodedata.normalize('NFC', record.path)}\0{record.sha256}\0{record.label}\n" for record in records
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
