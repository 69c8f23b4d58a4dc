"""Frees what TensorFlow and Keras keep of a finished job, so that a process can run many."""

import keras
from tensorflow.python.framework import ops

CUSTOM = "CustomGradient-"


def forget_job() -> None:
    """Every `optimizer.apply` leaves functions in TensorFlow's registry of gradients, and with them the whole model.

    There is no public way to take them out.
    """
    registry = ops.gradient_registry
    for name in [name for name in registry.list() if name.startswith(CUSTOM)]:
        del registry._registry[name]
    keras.backend.clear_session()
