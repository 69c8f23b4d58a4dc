"""Outputs of frozen layers as a source: computed in the first epoch, read from the cache in later epochs."""

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
    """Outputs of frozen layers for the inputs of another source, as float32.

    compute: applies the layers to a batch of inputs and returns [batch, *shape].
    """

    origin: Source
    compute: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]

    @cached_property
    def spec(self) -> DataSpec:
        return replace(self.origin.spec, input_shape=self.shape, input_dtype="float32")

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        inputs = self.origin.batches(indices, batch_size, num_parallel_calls)
        # One batch at a time, because the network already uses every core.
        return inputs.map(self._step)

    @tf.autograph.experimental.do_not_convert
    def _step(self, batch: tf.Tensor) -> tf.Tensor:
        # Layers inside the pipeline's graph would read variables, which disables prefetching under determinism.
        features = tf.numpy_function(self.compute, [batch], tf.float32, stateful=False)
        return tf.ensure_shape(features, (None, *self.shape))


def features_of(splits: Splits, compute: Callable[[Any], tf.Tensor], shape: tuple[int, ...], identity: str) -> Splits:
    """Returns `splits` with cached features as inputs, stored in memory or on disk like the images of the splits.

    identity: identifies the frozen layers in the pack's key.
    Raises DataError for splits that are augmented or not an `IndexedSplit`.
    """

    def of(split: Split) -> IndexedSplit:
        if not isinstance(split, IndexedSplit):
            raise DataError("the data set builds its batches itself and gives no access to single examples")
        if split.batching.augment:
            raise DataError("augmented images differ in every epoch")
        featured = FeatureSource(split.source, compute, shape)
        return replace(split, source=CachedSource(featured, _backend(split.source, featured.spec, identity)))

    return Splits(**{name: of(split) for name, split in splits.named().items()})


def _backend(origin: Source, spec: DataSpec, identity: str) -> CacheBackend:
    """Returns storage beside the origin's pack if it has one, else in memory."""
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
