"""Batches addressed by epoch and step: order and augmentation depend only on seed, epoch and example."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.data.augment import Augmentation, augmented, fitted
from experiments.data.base import DataSpec, Splits
from experiments.data.sampling import ClassWeight, balanced_order, class_weights
from experiments.errors import DataError, first_few, pluralized

logger = logging.getLogger(__name__)
Indices = NDArray[np.int64]
Auto = int | Literal["auto"]


class Source(Protocol):
    """Examples by position, stored in files, arrays or a cache."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def labels(self) -> Indices:
        """Class of every example, int64 [num_examples]."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Name of each example for messages, such as its file."""
        ...

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        """Returns the inputs of `indices` in that order, [batch, *input_shape]; the last batch may be short."""
        ...

    def unreadable_examples(self) -> list[str]:
        """Reads every example and returns the names of those that cannot be read."""
        ...

    def read_error(self) -> DataError | None:
        """Returns another reason why reading failed, such as changed files or an unwritable cache; None if unknown."""
        ...


@dataclass(frozen=True)
class Batching:
    """Options of batches; `num_parallel_calls` and `prefetch` change no bit of them.

    sampling: "shuffled" takes every example once per epoch, "balanced" takes every class equally often.
    class_weight: adds a weight per example to the batches; see `class_weights`.
    """

    batch_size: int
    shuffle: bool
    seed: int
    augment: Sequence[Augmentation] = ()
    num_parallel_calls: Auto = "auto"
    prefetch: Auto = "auto"
    sampling: str = "shuffled"
    class_weight: ClassWeight = None


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
    """Keyword arguments of every data function of this package, for its splits and their batches."""

    validation_fraction: float
    limit: int | None


@dataclass(frozen=True)
class IndexedSplit:
    """A `Split` of any source. It keeps no state between epochs, so any batch can be requested at any time.

    class_weights: weight of each class in the order of labels; None leaves weights out of the batches.
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
        """Returns the position in the source of every example of `epoch`, in training order."""
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
            # Balanced sampling may take an example twice. Random numbers by place in the epoch make the two differ.
            rows = np.arange(first_step * batch_size, self.spec.num_examples) if self._balanced else indices
            inputs = self._augmented(inputs, epoch, rows, parallel)
        dataset = tf.data.Dataset.zip(inputs, *(self._in_batches(column) for column in self._targets(indices)))
        return without_autotune(dataset.prefetch(_calls(self.batching.prefetch)) if self.batching.prefetch else dataset)

    @property
    def _balanced(self) -> bool:
        return self.batching.sampling == "balanced"

    def _targets(self, indices: Indices) -> list[NDArray[np.generic]]:
        """Returns labels and, if classes have weights, weights."""
        labels = self.source.labels[indices]
        return [labels] if self.class_weights is None else [labels, np.array(self.class_weights, np.float32)[labels]]

    def _in_batches(self, column: NDArray[np.generic]) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(column).batch(self.batching.batch_size)

    def _augmented(self, inputs: tf.data.Dataset, epoch: int, chosen: Indices, parallel: int) -> tf.data.Dataset:
        draws = sum(augmentation.draws for augmentation in self.batching.augment)
        # One row per example of the data set, so a batch gets the same numbers at whichever step the epoch starts.
        uniform = np.random.default_rng([self.batching.seed, epoch, 1]).random(
            (self.spec.num_examples, draws), dtype=np.float32
        )
        rows = self._in_batches(uniform[chosen])
        step = tf.autograph.experimental.do_not_convert(lambda x, u: augmented(x, u, self.batching.augment))
        return tf.data.Dataset.zip(inputs, rows).map(step, num_parallel_calls=parallel, deterministic=True)


def indexed(train: Source, validation: Source, test: Source | None, batching: Batching) -> Splits:
    """Returns splits of which only `train` is shuffled, balanced, weighted and augmented.

    Raises DataError if augmentations or weights do not fit the data, or if options contradict each other.
    """
    batching = replace(batching, augment=fitted(batching.augment, train.spec))
    _check_balance(batching)
    absent = [name for name, count in zip(train.spec.class_names, train.spec.class_counts, strict=True) if not count]
    if absent and train is not validation:
        text = "No training examples in '%s' for %s, which no model will learn: %s"
        logger.warning(text, train.spec.source, pluralized(len(absent), "class"), first_few(absent))
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
            "data.sampling=balanced and data.class_weight=balanced both correct for classes of unequal size: expected "
            "one of them. Set data.class_weight=null or data.sampling=shuffled."
        )


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Disables tf.data autotuning; AUTOTUNE then means one call per core, and as many prefetched batches as needed.

    The tuning thread sleeps for up to a minute, and an iterator that is left early sometimes waits for it
    (tensorflow::data::model::Model::OptimizeLoop): stopping a run took up to half a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _calls(value: Auto) -> int:
    return int(tf.data.AUTOTUNE) if value == "auto" else value


def side_effect(step: Callable[..., None], arguments: list[tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
    """Calls `step` with the arrays of `arguments` and returns `batch` unchanged; an error in `step` ends the epoch.

    A stateful function would disable prefetching under determinism, and the graph optimizer removes a stateless one
    whose result is not used. Therefore the batch is sliced from the index that the function returns. The index is
    always 0, so nothing is copied, but the optimizer cannot know that.
    """

    def run(*arrays: Any) -> np.int32:
        step(*arrays)
        return np.int32(0)

    begin = tf.numpy_function(run, arguments, tf.int32, stateful=False)
    rest = [0] * (len(batch.shape) - 1)
    return tf.ensure_shape(tf.slice(batch, [begin, *rest], [-1] * len(batch.shape)), batch.shape)
