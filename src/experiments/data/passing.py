"""A step of Python that batches pass through unchanged, run for what it does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def through(step: Callable[..., None], arguments: list[tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
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
