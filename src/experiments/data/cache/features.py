"""The outputs of frozen layers as a source: computed in the first epoch, read from then on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import tensorflow as tf

from experiments.data.base import DataSpec, Split, Splits
from experiments.data.cache.cached_source import CacheBackend, CachedSource, DiskCache, MemoryCache, WrappedSource
from experiments.data.cache.rows import MemoryRows
from experiments.data.pipeline import IndexedSplit, Indices, Source
from experiments.errors import DataError


@dataclass(frozen=True)
class FeatureSource(WrappedSource):
    """What frozen layers make of another source's inputs, as float32.

    compute: those layers, a batch of inputs -> [batch, *shape].
    """

    origin: Source
    compute: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]

    @cached_property
    def spec(self) -> DataSpec:
        return replace(self.origin.spec, input_shape=self.shape, input_dtype="float32")

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        inputs = self.origin.batches(indices, batch_size, num_parallel_calls)
        # One batch at a time: the network itself uses every core.
        return inputs.map(self._step)

    @tf.autograph.experimental.do_not_convert
    def _step(self, batch: tf.Tensor) -> tf.Tensor:
        # layers in the pipeline's own graph read variables, for which determinism gives up all reading ahead
        features = tf.numpy_function(self.compute, [batch], tf.float32, stateful=False)
        return tf.ensure_shape(features, (None, *self.shape))


def features_of(splits: Splits, compute: Callable[[Any], tf.Tensor], shape: tuple[int, ...], identity: str) -> Splits:
    """`splits` with what `FeatureSource` makes of their inputs, kept where the splits keep theirs.

    identity: of the frozen layers, for the pack's key.
    Raises DataError for splits that are augmented or made by other means than this package's sources.
    """

    def of(split: Split) -> IndexedSplit:
        if not isinstance(split, IndexedSplit):
            raise DataError("the data set makes its batches itself, example by example they are not known")
        if split.batching.augment:
            raise DataError("augmented images differ in every epoch")
        featured = FeatureSource(split.source, compute, shape)
        return replace(split, source=CachedSource(featured, _backend(split.source, featured.spec, identity)))

    test = None if splits.test is None else of(splits.test)
    return Splits(train=of(splits.train), validation=of(splits.validation), test=test)


def _backend(origin: Source, spec: DataSpec, identity: str) -> CacheBackend:
    """Beside the origin's own pack where it has one, else in memory."""
    if not (isinstance(origin, CachedSource) and isinstance(origin.backend, DiskCache)):
        return MemoryCache(MemoryRows(spec.num_examples, spec.input_shape, spec.input_dtype))
    images = origin.backend.contents
    contents = replace(
        images,
        identity={**images.identity, "features": identity},
        shape=spec.input_shape,
        dtype=spec.input_dtype,
        about={**images.about, "split": f"{images.about['split']}, features"},
    )
    return DiskCache(contents, origin.backend.cache_dir, origin.backend.required)
