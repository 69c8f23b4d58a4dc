"""Batches addressed by epoch and step: order and augmentation are pure functions of seed, epoch and example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.data.augment import Augmentation, augmented, check_augmentations
from experiments.data.base import DataSpec, Splits
from experiments.data.sampling import ClassWeight, balanced_order, class_weights
from experiments.errors import DataError

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

    def unreadable_examples(self) -> list[str]:
        """The names of all examples that cannot be read, found by reading every one."""
        ...

    def read_error(self) -> DataError | None:
        """What else has stopped reading: files that changed, a cache that takes nothing."""
        ...


@dataclass(frozen=True)
class Batching:
    """How examples become batches; `num_parallel_calls` and `prefetch` change no bit of them.

    sampling: "shuffled" takes every example once an epoch, "balanced" every class equally often.
    class_weight: adds the weight of each example to the batches; see `class_weights`.
    """

    batch_size: int
    shuffle: bool
    seed: int
    augment: Sequence[Augmentation] = ()
    num_parallel_calls: Auto = "auto"
    prefetch: Auto = "auto"
    sampling: str = "shuffled"
    class_weight: ClassWeight = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment))


class BatchOptions(TypedDict):
    """Keyword arguments of `Batching`, which every data function passes on."""

    batch_size: int
    shuffle: bool
    seed: int
    augment: NotRequired[Sequence[Augmentation]]
    num_parallel_calls: NotRequired[Auto]
    prefetch: NotRequired[Auto]
    sampling: NotRequired[str]
    class_weight: NotRequired[ClassWeight]


class SplitOptions(BatchOptions):
    """Keyword arguments of every data function of this package: how splits are made, and their batches."""

    validation_fraction: float
    limit: int | None


@dataclass(frozen=True)
class IndexedSplit:
    """A `Split` over any source: nothing runs between two epochs, so any batch can be asked for at any time.

    class_weights: of each class by its number; None leaves weights out of the batches.
    """

    source: Source
    batching: Batching
    class_weights: tuple[float, ...] | None = None

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
        rng = np.random.default_rng([self.batching.seed, epoch])
        return balanced_order(self.source.labels, rng) if self._balanced else rng.permutation(count)

    def epoch(self, epoch: int, *, first_step: int = 0) -> tf.data.Dataset:
        batch_size, parallel = self.batching.batch_size, _calls(self.batching.num_parallel_calls)
        indices = self.order(epoch)[first_step * batch_size :]
        inputs = self.source.batches(indices, batch_size, parallel)
        if self.batching.augment:
            # an example that balanced sampling takes twice must look different: its place draws, not its number
            rows = np.arange(first_step * batch_size, self.spec.num_examples) if self._balanced else indices
            inputs = self._augmented(inputs, epoch, rows, parallel)
        dataset = tf.data.Dataset.zip(inputs, *(self._in_batches(column) for column in self._targets(indices)))
        return without_autotune(dataset.prefetch(_calls(self.batching.prefetch)) if self.batching.prefetch else dataset)

    @property
    def _balanced(self) -> bool:
        return self.batching.sampling == "balanced"

    def _targets(self, indices: Indices) -> list[NDArray[np.generic]]:
        """Labels and, where classes have one, weights."""
        labels = self.source.labels[indices]
        return [labels] if self.class_weights is None else [labels, np.array(self.class_weights, np.float32)[labels]]

    def _in_batches(self, column: NDArray[np.generic]) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(column).batch(self.batching.batch_size)

    def _augmented(self, inputs: tf.data.Dataset, epoch: int, chosen: Indices, parallel: int) -> tf.data.Dataset:
        draws = sum(augmentation.draws for augmentation in self.batching.augment)
        # one row an example of the data set, not of this epoch's order: a batch draws the same wherever it starts
        uniform = np.random.default_rng([self.batching.seed, epoch, 1]).random(
            (self.spec.num_examples, draws), dtype=np.float32
        )
        rows = self._in_batches(uniform[chosen])
        step = tf.autograph.experimental.do_not_convert(lambda x, u: augmented(x, u, self.batching.augment))
        return tf.data.Dataset.zip(inputs, rows).map(step, num_parallel_calls=parallel, deterministic=True)


def indexed(train: Source, validation: Source, test: Source | None, batching: Batching) -> Splits:
    """Splits of which only `train` is shuffled, balanced, weighted and augmented.

    Raises DataError when augmentations or weights do not fit the data, or when options contradict each other.
    """
    check_augmentations(batching.augment, train.spec)
    _check_balance(batching)
    plain = replace(batching, shuffle=False, augment=(), sampling="shuffled", class_weight=None)
    return Splits(
        train=IndexedSplit(train, batching, class_weights(batching.class_weight, train.spec)),
        validation=IndexedSplit(validation, plain),
        test=None if test is None else IndexedSplit(test, plain),
    )


def _check_balance(batching: Batching) -> None:
    if batching.sampling == "balanced" and not batching.shuffle:
        raise DataError(
            "data.sampling=balanced draws examples at random, which data.shuffle=false forbids. "
            "Set data.shuffle=true or data.sampling=shuffled."
        )
    if batching.sampling == "balanced" and batching.class_weight == "balanced":
        raise DataError(
            "data.sampling=balanced and data.class_weight=balanced make up for the same thing twice: expected one of "
            "them. Set data.class_weight=null or data.sampling=shuffled."
        )


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without the thread that tunes what is `auto`: that is as many calls as cores then, and batches as needed.

    That thread sleeps up to a minute between two looks, and whoever leaves an iterator before its end waits for it now
    and then (tensorflow::data::model::Model::OptimizeLoop): a stopped run did not end for half a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _calls(value: Auto) -> int:
    return int(tf.data.AUTOTUNE) if value == "auto" else value


def side_effect(step: Callable[..., None], arguments: list[tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
    """`batch` itself, after `step(*arguments)` ran on their arrays; what it raises ends the epoch.

    A stateful function would be kept without more ado, but costs the prefetching under determinism; of one that is
    not, the graph's optimiser leaves out whatever the result does not need. So the result is cut at a place that only
    the function knows, which is its begin: no copy.
    """

    def run(*arrays: Any) -> np.int32:
        step(*arrays)
        return np.int32(0)

    begin = tf.numpy_function(run, arguments, tf.int32, stateful=False)
    rest = [0] * (len(batch.shape) - 1)
    return tf.ensure_shape(tf.slice(batch, [begin, *rest], [-1] * len(batch.shape)), batch.shape)
