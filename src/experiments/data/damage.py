"""Damage that only decoding finds: names the file when training stops over it."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from experiments.data.base import Splits
from experiments.data.pipeline import IndexedSplit
from experiments.data.scan import named
from experiments.errors import DataError

_READING = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.DataLossError,
)


@contextmanager
def named_errors(splits: Splits) -> Iterator[None]:
    """Around training: an error of TensorFlow that unreadable examples explain becomes a DataError naming them.

    Every example is read again to find them; any other error passes through unchanged.
    """
    try:
        yield
    except _READING as error:
        damaged = _damaged(splits)
        if not damaged:
            raise
        subject = "An image" if len(damaged) == 1 else f"{len(damaged)} images"
        raise DataError(
            f"{subject} could not be read during training, though header and end were in order before: "
            f"{named(damaged)}. Replace or delete what is damaged inside or gone, and start again."
        ) from error


def _damaged(splits: Splits) -> list[str]:
    every = (splits.train, splits.validation, splits.test)
    return [name for split in every if isinstance(split, IndexedSplit) for name in split.source.damaged()]
