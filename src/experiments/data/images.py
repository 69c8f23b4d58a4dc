"""Image files as a source: one decoder, used the same way whatever keeps the result."""

import hashlib
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from experiments.data.base import DataSpec
from experiments.data.pipeline import Indices
from experiments.data.progress import progress
from experiments.data.scan import Damage, Record

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG: a grey image stays what it is


@dataclass(frozen=True)
class Decoder:
    """Encoded bytes -> uint8 [height, width, channels], resized bilinear as Keras's own loader does.

    antialias: smooths before shrinking; slower, and not what most published weights were trained on.
    channels: 3, or 1 for shades of grey.
    """

    image_size: tuple[int, int]
    channels: int
    antialias: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.image_size, self.channels)

    def __call__(self, content: tf.Tensor) -> tf.Tensor:
        """Raises tf.errors.InvalidArgumentError on bytes that are no image."""
        pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
        resized = tf.image.resize(pixels, self.image_size, method="bilinear", antialias=self.antialias)
        if self.channels == 1:
            resized = tf.reduce_sum(resized * _LUMA, axis=-1, keepdims=True)
        return tf.ensure_shape(tf.saturate_cast(tf.round(resized), tf.uint8), self.shape)

    def read(self, path: tf.Tensor) -> tf.Tensor:
        return self(tf.io.read_file(path))


@dataclass(frozen=True)
class FileSource:
    """Images decoded whenever they are asked for."""

    root: Path
    records: tuple[Record, ...]
    decoder: Decoder
    class_names: tuple[str, ...]
    skipped: tuple[Damage, ...]

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
        )

    @cached_property
    def labels(self) -> Indices:
        return np.array([record.label for record in self.records], np.int64)

    @cached_property
    def names(self) -> Sequence[str]:
        return [str(self.root / record.path) for record in self.records]

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        paths = tf.constant([self.names[index] for index in indices], tf.string)
        read = tf.autograph.experimental.do_not_convert(self.decoder.read)
        images = tf.data.Dataset.from_tensor_slices(paths).map(
            read, num_parallel_calls=num_parallel_calls, deterministic=True
        )
        return images.batch(batch_size)

    def damaged(self) -> list[str]:
        with ThreadPoolExecutor() as readers, progress("Looking for the damaged image", len(self.names)) as advance:
            found = []
            for name, fails in zip(self.names, readers.map(self._fails, self.names), strict=True):
                advance(1)
                if fails:
                    found.append(name)
        return found

    def _fails(self, name: str) -> bool:
        try:
            self.decoder.read(tf.constant(name))
        except tf.errors.OpError:
            return True
        return False


def digest(records: Sequence[Record]) -> str:
    """SHA-256 over path, content and class of every image, whatever the order of `records` or the file system."""
    lines = sorted(
        f"{unicodedata.normalize('NFC', record.path)}\0{record.sha256}\0{record.label}\n" for record in records
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
