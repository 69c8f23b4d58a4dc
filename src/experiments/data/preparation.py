"""Type and range of inputs: chosen when arrays are read, and restored when other data is given to a finished run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.data.base import OTHER, PIXELS, UNIT, WHITE, DataSpec, Split, split_rules
from experiments.data.cache.cached_source import WrappedSource
from experiments.data.pipeline import IndexedSplit, Indices, Source
from experiments.errors import DataError, first_few

Array = NDArray[np.generic]
_CHUNK = 2**22  # values that are examined at once


def prepared(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], str | None]:
    """Returns the inputs [n, ...] of every split as uint8 or float32, and the range of their values.

    Integers within 0..255 are pixels and become uint8, except for flags of 0 and 1. The splits are examined together.
    Raises DataError naming the example and the split if a value is not finite, or the splits if their ranges differ.
    """
    pixels, found, images = False, None, any(array.dtype == np.uint8 for array in arrays.values())
    if split_rules() > 1:
        bounds = {split: _bounds(array, split) for split, array in arrays.items()}
        low, high = min(low for low, _ in bounds.values()), max(high for _, high in bounds.values())
        high = 255.0 if images and high == 0 else high  # black
        # Values of up to 127 are grey levels of another range, such as 0..16.
        found = OTHER if low < 0 or high > 255 or 1 < high <= 127 else PIXELS if high > 1 else UNIT
        pixels = low >= 0 and 1 < high <= 255 and all(array.dtype.kind in "ui" for array in arrays.values())
        # Other splits of whole numbers may be dark pixels. A model learns nothing from dark pixels only.
        apart = split_rules() > 2 and low >= -1 and 127 < high <= 255
        unit = [split for split, (_, highest) in bounds.items() if apart and 0 < highest <= 1]
        if any(s == "train" or arrays[s].dtype.kind == "b" or (arrays[s] % 1).any() for s in unit):
            ranges = ", ".join(f"'{split}' {low:g} to {high:g}" for split, (low, high) in bounds.items())
            raise DataError(f"The splits have inputs in different ranges: {ranges}. Expected one. Scale all, or none.")
    kind = np.uint8 if pixels else np.float32
    typed = {s: a if a.dtype == np.uint8 and found != UNIT else a.astype(kind) for s, a in arrays.items()}
    # Pixels [n, height, width] become [n, height, width, 1].
    return {s: a[..., None] if (images or pixels) and a.ndim == 3 else a for s, a in typed.items()}, found


def _bounds(array: Array, split: str) -> tuple[float, float]:
    """Returns the smallest and the largest value as float32; 0 and 255 for uint8 with values above 1."""
    if array.dtype == np.uint8 and (split_rules() < 3 or array.max() > 1):
        return 0.0, 255.0
    rows, bounds = max(1, _CHUNK // array[0].size), []
    for start in range(0, len(array), rows):
        with np.errstate(over="ignore"):  # the resulting infinity is reported
            chunk = array[start : start + rows].reshape(-1, array[0].size).astype(np.float32)
        bounds += [float(chunk.min()), float(chunk.max())]
        if not np.isfinite(bounds[-2:]).all():
            row, column = np.argwhere(~np.isfinite(chunk))[0]
            raise DataError(
                f"Example {start + row} of '{split}' contains {chunk[row, column]}: expected finite numbers. Remove "
                "the example or replace the value, for instance by np.nan_to_num."
            )
    return min(bounds), max(bounds)


def converted(inputs: tf.Tensor, value_range: str | None, spec: DataSpec) -> tf.Tensor:
    """Returns inputs whose values are in `value_range` in the shape, type and range of the inputs of `spec`."""
    values = tf.cast(tf.reshape(inputs, (-1, *spec.input_shape)), tf.float32)
    if value_range != spec.value_range and {value_range, spec.value_range} <= WHITE.keys():
        values = values / WHITE[str(value_range)] * WHITE[str(spec.value_range)]
    return tf.saturate_cast(tf.round(values), tf.uint8) if spec.input_dtype == "uint8" else values


@dataclass(frozen=True)
class OtherSource(WrappedSource):
    """Examples of other data for the model of a run, whose training split has the spec `run`."""

    origin: Source
    run: DataSpec

    @cached_property
    def labels(self) -> Indices:
        numbers = {name: number for number, name in enumerate(self.run.class_names)}
        return np.array([numbers.get(name, -1) for name in self.spec.class_names])[self.origin.labels]

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        step = tf.autograph.experimental.do_not_convert(lambda x: converted(x, self.spec.value_range, self.run))
        return self.origin.batches(indices, batch_size, num_parallel_calls).map(step)


def other_data(split: Split, run: DataSpec) -> Split:
    """Returns a split with the inputs and class numbers of a run of this spec; raises DataError if it does not fit."""
    found, names = split.spec, ("input_shape", "input_dtype", "value_range", "class_names")
    if all(getattr(found, name) == getattr(run, name) for name in names):
        return split
    shape, expected = ([side for side in spec.input_shape if side > 1] for spec in (found, run))
    ranges, same_type = {found.value_range, run.value_range}, found.input_dtype == run.input_dtype
    # If a range is unknown, only the types can be compared.
    known = same_type if None in ranges else ranges <= WHITE.keys() or len(ranges) == 1
    if len(run.input_shape) == 1:  # features, whose largest value differs between data sets
        known = same_type and ranges != WHITE.keys()
    classes = {name for name, count in zip(found.class_names, found.class_counts, strict=True) if count}
    if not isinstance(split, IndexedSplit) or shape != expected or not known or not classes <= set(run.class_names):
        raise DataError(
            f"The data has {found.inputs} and the classes {first_few(found.class_names, 12)}, but the run was trained "
            f"on {run.inputs} and the classes {first_few(run.class_names, 12)}. Expected the same inputs and no other "
            "classes. Change the data (pixels to uint8), or set run_id to another run."
        )
    return replace(split, source=OtherSource(split.source, run))
