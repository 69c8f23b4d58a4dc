"""A source kept decoded, so that an epoch reads no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from experiments.data.arrays import gathered
from experiments.data.base import DataSpec
from experiments.data.pipeline import Indices, Source
from experiments.data.progress import progress

_CHUNK = 64


@dataclass(frozen=True)
class MemorySource:
    """The inputs of another source, read once when first asked for; same bits, num_examples * input_shape bytes."""

    origin: Source

    @property
    def spec(self) -> DataSpec:
        return self.origin.spec

    @property
    def labels(self) -> Indices:
        return self.origin.labels

    @property
    def names(self) -> Sequence[str]:
        return self.origin.names

    def damaged(self) -> list[str]:
        return self.origin.damaged()

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        return gathered(self._inputs, indices, batch_size, num_parallel_calls)

    @cached_property
    def _inputs(self) -> tf.Tensor:
        spec = self.spec
        kept = np.empty((spec.num_examples, *spec.input_shape), spec.input_dtype)
        chunks = self.origin.batches(np.arange(spec.num_examples), _CHUNK, int(tf.data.AUTOTUNE))
        with progress("Decoding images into memory", spec.num_examples) as advance:
            for number, chunk in enumerate(chunks.as_numpy_iterator()):
                kept[number * _CHUNK : number * _CHUNK + len(chunk)] = chunk
                advance(len(chunk))
        with tf.device("CPU:0"):
            return tf.constant(kept)


def cached(source: Source, cache: str) -> Source:
    """`source` itself for "none", kept in memory for "memory"."""
    return MemorySource(source) if cache == "memory" else source
