"""Frees what TensorFlow and Keras keep of a finished job, so that a process can run many."""

import gc
from functools import cache

from tensorflow.python.framework import ops

CUSTOM = "CustomGradient-"


def forget_job() -> None:
    """Every `optimizer.apply` leaves functions in TensorFlow's registry of gradients, and with them the whole model.

    There is no public way to take them out. The next run clears Keras's session.
    """
    registry = ops.gradient_registry
    for name in [name for name in registry.list() if name.startswith(CUSTOM)]:
        del registry._registry[name]


@cache
def keep_imports() -> None:
    """Once, before the first job: the collections between jobs need not look at what was imported."""
    gc.freeze()
