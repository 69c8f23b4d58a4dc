"""Arrays as a data set; a user-defined data function needs one call of `from_arrays`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from experiments.data.base import DataSpec, Splits, split_rules
from experiments.data.pipeline import Batching, BatchOptions, Indices, indexed
from experiments.data.preparation import prepared
from experiments.data.sampling import held_out, stratified_subset
from experiments.errors import DataError, first_few

Pair = tuple[ArrayLike, ArrayLike]
"""Inputs [n, ...] and integer labels [n]."""
_MOST_CHANNELS = 13  # as satellite images have
_HIGHEST_LABEL = 10**7  # larger numbers identify users or products


@dataclass(frozen=True)
class Examples:
    """Checked arrays of one split: inputs uint8 or float32 [n, ...], labels int64 [n]."""

    inputs: NDArray[np.generic]
    labels: Indices

    def take(self, chosen: NDArray[np.generic]) -> "Examples":
        return Examples(self.inputs[chosen], self.labels[chosen])


@dataclass(frozen=True)
class ArraySource(Examples):
    """Source of examples in memory."""

    name: str
    class_names: tuple[str, ...]
    origin: str
    value_range: str | None = None

    @cached_property
    def spec(self) -> DataSpec:
        inputs, counts = self.inputs, np.bincount(self.labels, minlength=len(self.class_names))
        return DataSpec(
            input_shape=inputs.shape[1:],
            input_dtype=inputs.dtype.name,
            num_classes=len(self.class_names),
            class_names=self.class_names,
            num_examples=len(inputs),
            digest=digest(self),
            class_counts=tuple(counts.tolist()),
            source=self.origin,
            value_range=self.value_range,
        )

    @cached_property
    def names(self) -> Sequence[str]:
        return [f"{self.name}[{index}]" for index in range(len(self.labels))]

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        inputs, rows = self._inputs, tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        gather = tf.autograph.experimental.do_not_convert(lambda chosen: tf.gather(inputs, chosen))
        return rows.map(gather, num_parallel_calls=num_parallel_calls, deterministic=True)

    def unreadable_examples(self) -> list[str]:
        return []

    def read_error(self) -> DataError | None:
        return None

    @cached_property
    def _inputs(self) -> tf.Tensor:
        with tf.device("CPU:0"):  # naming the device halves the number of copies
            return tf.constant(self.inputs)


def from_arrays(
    train: Pair,
    validation: Pair | None = None,
    test: Pair | None = None,
    *,
    validation_fraction: float | None = None,
    limit: int | None = None,
    class_names: Sequence[str] | None = None,
    source: str = "arrays",
    **batching: Unpack[BatchOptions],
) -> Splits:
    """Returns splits of pairs (inputs [n, ...], integer labels [n]).

    Integers within 0..255 are pixels and become uint8, and [n, height, width] becomes [n, height, width, 1]; other
    inputs become float32. If `validation` is None, `validation_fraction` of `train` is held out by a hash of the
    position, the same for every seed; 1 makes both splits of all examples. `limit` is the maximum number of examples
    per split; `source` names the origin of the data. `batching` contains arguments of `Batching`; `sampling` and
    `class_weight` affect only training.
    Raises DataError naming the array if lengths, shapes or labels do not fit, or if an input is not finite.
    """
    batches = Batching(**batching)
    pairs = {"train": train, "validation": validation, "test": test}
    arrays = {split: (np.asarray(pair[0]), np.asarray(pair[1])) for split, pair in pairs.items() if pair is not None}
    for split, (array, _) in arrays.items():
        _check_inputs(array, split)
    inputs, value_range = prepared({split: array for split, (array, _) in arrays.items()})
    parts = {split: Examples(inputs[split], _labels(y, len(x), split)) for split, (x, y) in arrays.items()}
    if validation is None and validation_fraction != 1:
        parts["train"], parts["validation"] = _divided(parts["train"], validation_fraction)
    names = _class_names(parts, class_names, fewest=1 if validation_fraction == 1 else 2)
    _check_shapes(parts)
    if limit is not None:
        parts = {name: part.take(stratified_subset(part.labels, limit)) for name, part in parts.items()}
    sources = {
        name: ArraySource(part.inputs, part.labels, name, names, source, value_range) for name, part in parts.items()
    }
    return indexed(sources["train"], sources.get("validation", sources["train"]), sources.get("test"), batches)


def digest(examples: Examples) -> str:
    """SHA-256 over shape, type and values of inputs and labels, in order."""
    total = hashlib.sha256()
    for array in (examples.inputs, examples.labels):
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _check_inputs(inputs: NDArray[np.generic], split: str) -> None:
    sides = inputs.shape[1:]
    first = len(sides) == 3 and sides[0] in (1, 3, 4) and min(sides[1:]) > _MOST_CHANNELS and split_rules() > 1
    if first or inputs.dtype.kind not in "uifb" or inputs.ndim < 2 or inputs.size == 0:
        raise DataError(
            f"The inputs of '{split}' must be numbers [n, ...] with n of 1 or more, channels last: received "
            f"{inputs.dtype} {list(inputs.shape)}. Convert them; np.moveaxis(inputs, 1, -1) moves channels to the end."
        )


def _labels(labels: NDArray[np.generic], count: int, split: str) -> Indices:
    """Returns the labels as int64 [count]."""
    numbers = labels.dtype.kind in "uib" and labels.shape in {(count,), (count, 1)}
    if not numbers or labels.min() < 0 or labels.max() > _HIGHEST_LABEL:
        received = f"{labels.min()} to {labels.max()}" if numbers else f"{labels.dtype} {list(labels.shape)}"
        raise DataError(
            f"The labels of '{split}' must be whole numbers from 0, one for each of {count} inputs: received "
            f"{received}. Turn one-hot labels into argmax(axis=1), and number other classes by "
            "np.unique(labels, return_inverse=True)[1]; targets that are not classes are not supported."
        )
    return labels.reshape(count).astype(np.int64)


def _divided(examples: Examples, fraction: float | None) -> tuple[Examples, Examples]:
    chosen = held_out([str(index) for index in range(len(examples.labels))], fraction or 0.0)
    if not chosen.any():
        raise DataError(
            f"There is no validation split, and data.validation_fraction={fraction} of {len(chosen)} training "
            "examples leaves none for it. Set data.validation_fraction=0.1 or give a validation split."
        )
    return examples.take(~chosen), examples.take(chosen)


def _class_names(parts: dict[str, Examples], given: Sequence[str] | None, fewest: int) -> tuple[str, ...]:
    highest = int(max(part.labels.max() for part in parts.values()))
    names = tuple(map(str, range(highest + 1))) if given is None else tuple(given)
    if highest >= len(names):
        raise DataError(f"Label {highest} has no name: received {len(names)} class names. Name every class.")
    if len(set(names)) < len(names) and split_rules() > 2:
        raise DataError(f"Two classes have one name: received {first_few(names, 12)}. Give each class its own name.")
    if len(names) < fewest:
        raise DataError("There is one class only: expected labels of 2 or more classes. Check the labels.")
    return names


def _check_shapes(parts: dict[str, Examples]) -> None:
    kinds = {name: f"{list(part.inputs.shape[1:])} of {part.inputs.dtype}" for name, part in parts.items()}
    if len(set(kinds.values())) > 1:
        received = ", ".join(f"'{name}' has {kind}" for name, kind in kinds.items())
        raise DataError(f"All splits must hold the same kind of input: {received}. Bring them to one shape and type.")
