"""Batches addressed by epoch and step: order and augmentation are pure functions of seed, epoch and example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.data.augment import Augmentation, augmented, check_augmentations
from experiments.data.base import DataSpec, Splits

Indices = NDArray[np.int64]
Auto = int | Literal["auto"]


class Source(Protocol):
    """Examples by position; where they lie (files, arrays, a cache) is the source's own business."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def labels(self) -> Indices:
        """The class of every example, int64 [num_examples]."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What a person would call each example, such as its file."""
        ...

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        """The inputs of `indices` in that order, [batch, *input_shape]; the last batch may be short."""
        ...

    def damaged(self) -> list[str]:
        """The names of all examples that cannot be read, found by reading every one."""
        ...


@dataclass(frozen=True)
class Batching:
    """How examples become batches; nothing but `batch_size`, `shuffle`, `seed` and `augment` changes a bit of them."""

    batch_size: int
    shuffle: bool
    seed: int
    augment: tuple[Augmentation, ...]
    num_parallel_calls: Auto
    prefetch: Auto


@dataclass(frozen=True)
class IndexedSplit:
    """A `Split` over any source: nothing runs between two epochs, so any batch can be asked for at any time."""

    source: Source
    batching: Batching

    @property
    def spec(self) -> DataSpec:
        return self.source.spec

    @property
    def batch_size(self) -> int:
        return self.batching.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.spec.num_examples // self.batching.batch_size)

    def order(self, epoch: int) -> Indices:
        """The position in the source of every example of `epoch`, in training order."""
        count = self.spec.num_examples
        if not self.batching.shuffle:
            return np.arange(count)
        return np.random.default_rng([self.batching.seed, epoch]).permutation(count)

    def epoch(self, epoch: int, *, first_step: int = 0) -> tf.data.Dataset:
        batch_size, parallel = self.batching.batch_size, _calls(self.batching.num_parallel_calls)
        indices = self.order(epoch)[first_step * batch_size :]
        inputs = self.source.batches(indices, batch_size, parallel)
        if self.batching.augment:
            inputs = self._augmented(inputs, epoch, indices, parallel)
        labels = tf.data.Dataset.from_tensor_slices(self.source.labels[indices]).batch(batch_size)
        dataset = tf.data.Dataset.zip(inputs, labels)
        return dataset.prefetch(_calls(self.batching.prefetch)) if self.batching.prefetch else dataset

    def _augmented(self, inputs: tf.data.Dataset, epoch: int, indices: Indices, parallel: int) -> tf.data.Dataset:
        draws = sum(augmentation.draws for augmentation in self.batching.augment)
        # one row an example of the data set, not of this epoch's order: a batch draws the same wherever it starts
        uniform = np.random.default_rng([self.batching.seed, epoch, 1]).random(
            (self.spec.num_examples, draws), dtype=np.float32
        )
        rows = tf.data.Dataset.from_tensor_slices(uniform[indices]).batch(self.batching.batch_size)
        step = tf.autograph.experimental.do_not_convert(lambda x, u: augmented(x, u, self.batching.augment))
        return tf.data.Dataset.zip(inputs, rows).map(step, num_parallel_calls=parallel, deterministic=True)


def indexed(train: Source, validation: Source, test: Source | None, batching: Batching) -> Splits:
    """Splits of which only `train` is shuffled and augmented.

    Raises DataError when an augmentation does not fit the inputs.
    """
    check_augmentations(batching.augment, train.spec)
    plain = replace(batching, shuffle=False, augment=())
    return Splits(
        train=IndexedSplit(train, batching),
        validation=IndexedSplit(validation, plain),
        test=None if test is None else IndexedSplit(test, plain),
    )


def _calls(value: Auto) -> int:
    return int(tf.data.AUTOTUNE) if value == "auto" else value
