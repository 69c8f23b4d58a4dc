"""Names the files when training stops on images that cannot be decoded."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from experiments.data.base import Splits
from experiments.data.pipeline import IndexedSplit, Source
from experiments.errors import DataError, first_few

_READING = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.DataLossError,
)


@contextmanager
def named_errors(splits: Splits) -> Iterator[None]:
    """Turns TensorFlow errors that unreadable examples or their cache cause into a DataError naming them.

    Reads every example again to find the unreadable ones; any other error passes through unchanged.
    """
    try:
        yield
    # An error raised by Python code within tf.data may arrive as UnknownError.
    except (*_READING, tf.errors.UnknownError) as error:
        for source in _sources(splits):
            if (explanation := source.read_error()) is not None:
                raise explanation from error
        if not isinstance(error, _READING):
            raise
        damaged = [name for source in _sources(splits) for name in source.unreadable_examples()]
        if not damaged:
            raise
        subject = "An image" if len(damaged) == 1 else f"{len(damaged)} images"
        raise DataError(
            f"{subject} could not be read during training, although header and end were valid before: "
            f"{first_few(damaged)}. Replace or delete corrupt and missing files, and start again."
        ) from error


def _sources(splits: Splits) -> list[Source]:
    return [split.source for split in splits.named().values() if isinstance(split, IndexedSplit)]
