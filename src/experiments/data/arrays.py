"""Arrays as a data set; a user-defined data function needs one call of `from_arrays`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from experiments.data.base import DataSpec, Splits
from experiments.data.pipeline import Batching, BatchOptions, Indices, indexed
from experiments.data.sampling import held_out, stratified_subset
from experiments.errors import DataError

Pair = tuple[ArrayLike, ArrayLike]
"""Inputs [n, ...] and integer labels [n]."""


@dataclass(frozen=True)
class Examples:
    """Checked arrays of one split: inputs uint8 or float32 [n, ...], labels int64 [n]."""

    inputs: NDArray[np.generic]
    labels: Indices

    def take(self, chosen: NDArray[np.generic]) -> "Examples":
        return Examples(self.inputs[chosen], self.labels[chosen])


@dataclass(frozen=True)
class ArraySource:
    """Source of examples in memory."""

    name: str
    examples: Examples
    class_names: tuple[str, ...]
    origin: str

    @cached_property
    def spec(self) -> DataSpec:
        inputs, counts = self.examples.inputs, np.bincount(self.labels, minlength=len(self.class_names))
        return DataSpec(
            input_shape=inputs.shape[1:],
            input_dtype=inputs.dtype.name,
            num_classes=len(self.class_names),
            class_names=self.class_names,
            num_examples=len(inputs),
            digest=digest(self.examples),
            class_counts=tuple(counts.tolist()),
            source=self.origin,
        )

    @property
    def labels(self) -> Indices:
        return self.examples.labels

    @cached_property
    def names(self) -> Sequence[str]:
        return [f"{self.name}[{index}]" for index in range(len(self.labels))]

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        return gathered(self._inputs, indices, batch_size, num_parallel_calls)

    def unreadable_examples(self) -> list[str]:
        return []

    def read_error(self) -> DataError | None:
        return None

    @cached_property
    def _inputs(self) -> tf.Tensor:
        with tf.device("CPU:0"):  # naming the device halves the number of copies
            return tf.constant(self.examples.inputs)


def gathered(inputs: tf.Tensor, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
    """Returns batches of the rows `indices` of a tensor in memory."""
    rows = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
    gather = tf.autograph.experimental.do_not_convert(lambda chosen: tf.gather(inputs, chosen))
    return rows.map(gather, num_parallel_calls=num_parallel_calls, deterministic=True)


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

    uint8 inputs are pixels and keep their values, but [n, height, width] becomes [n, height, width, 1]; other inputs
    become float32. If `validation` is None, `validation_fraction` of `train` is held out by a hash of the position,
    the same for every seed. `limit` is the maximum number of examples per split; `source` names the origin of the data.
    `batching` contains arguments of `Batching`; `sampling` and `class_weight` affect only training.
    Raises DataError naming the array if lengths, shapes or labels do not fit.
    """
    batches = Batching(**batching)
    parts = {"train": _examples(train, "train")}
    if validation is None:
        parts["train"], parts["validation"] = _divided(parts["train"], validation_fraction)
    else:
        parts["validation"] = _examples(validation, "validation")
    if test is not None:
        parts["test"] = _examples(test, "test")
    names = _class_names(parts, class_names)
    _check_shapes(parts)
    if limit is not None:
        parts = {name: part.take(stratified_subset(part.labels, limit)) for name, part in parts.items()}
    sources = {name: ArraySource(name, part, names, source) for name, part in parts.items()}
    return indexed(sources["train"], sources["validation"], sources.get("test"), batches)


def digest(examples: Examples) -> str:
    """SHA-256 over shape, type and values of inputs and labels, in order."""
    total = hashlib.sha256()
    for array in (examples.inputs, examples.labels):
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _examples(pair: Pair, split: str) -> Examples:
    inputs, labels = np.asarray(pair[0]), np.asarray(pair[1])
    if inputs.dtype.kind not in "uifb":
        raise DataError(f"The inputs of '{split}' must be numbers: received {inputs.dtype}. Convert them first.")
    if inputs.ndim < 2 or len(inputs) == 0:
        raise DataError(f"The inputs of '{split}' must be [n, ...] with n of 1 or more: received {list(inputs.shape)}.")
    if inputs.dtype == np.uint8:
        inputs = inputs[..., None] if inputs.ndim == 3 else inputs
    else:
        inputs = inputs.astype(np.float32)
    return Examples(inputs, _labels(labels, len(inputs), split))


def _labels(labels: NDArray[np.generic], count: int, split: str) -> Indices:
    expected = f"The labels of '{split}' must be whole numbers from 0, one for each of {count} inputs"
    if labels.shape not in {(count,), (count, 1)}:
        raise DataError(
            f"{expected}: received the shape {list(labels.shape)}. Turn one-hot labels into argmax(axis=1)."
        )
    if labels.dtype.kind not in "ui":
        raise DataError(f"{expected}: received {labels.dtype}. Convert them with astype('int64').")
    if labels.min() < 0:
        raise DataError(f"{expected}: received {labels.min()}. Number the classes from 0.")
    return labels.reshape(count).astype(np.int64)


def _divided(examples: Examples, fraction: float | None) -> tuple[Examples, Examples]:
    chosen = held_out([str(index) for index in range(len(examples.labels))], fraction or 0.0)
    if not chosen.any():
        raise DataError(
            f"There is no validation split, and data.validation_fraction={fraction} of {len(chosen)} training "
            "examples leaves none for it. Set data.validation_fraction=0.1 or give a validation split."
        )
    return examples.take(~chosen), examples.take(chosen)


def _class_names(parts: dict[str, Examples], given: Sequence[str] | None) -> tuple[str, ...]:
    highest = int(max(part.labels.max() for part in parts.values()))
    names = tuple(map(str, range(highest + 1))) if given is None else tuple(given)
    if highest >= len(names):
        raise DataError(f"Label {highest} has no name: received {len(names)} class names. Name every class.")
    if len(names) < 2:
        raise DataError("There is one class only: expected labels of 2 or more classes. Check the labels.")
    return names


def _check_shapes(parts: dict[str, Examples]) -> None:
    expected = (parts["train"].inputs.shape[1:], parts["train"].inputs.dtype)
    for name, part in parts.items():
        if (part.inputs.shape[1:], part.inputs.dtype) != expected:
            raise DataError(
                f"All splits must hold the same kind of input: 'train' has {list(expected[0])} of {expected[1]}, "
                f"'{name}' has {list(part.inputs.shape[1:])} of {part.inputs.dtype}. Bring them to one shape and type."
            )
