"""Frozen networks that runs of one process share: building one takes longer than training a head on its features."""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Network(NamedTuple):
    """loaded: whether it has its weights, so that nothing is left to load."""

    network: keras.Model
    loaded: bool


class _Entry(NamedTuple):
    built: Network
    weights: str
    random_state: tuple[Any, ...]


_last: dict[Hashable, _Entry] = {}
"""At most one entry, the last: runs that follow each other mostly differ in something else."""


def shared(key: Hashable, build: Callable[[], Network]) -> Network:
    """What `build` makes, or made last for an equal `key` and precision, and as nobody has changed it since.

    Building draws seeds from Python's generator, so that one in another state means another network; it is left as
    building leaves it, for what is drawn later.
    """
    if tf.distribute.has_strategy():  # variables belong to theirs
        return build()
    key = (key, keras.config.dtype_policy().name, random.getstate())
    entry = _last.get(key)
    if entry is None or entry.built.network.trainable_weights or digest(entry.built.network.weights) != entry.weights:
        _last.clear()
        built = build()
        entry = _last[key] = _Entry(built, digest(built.network.weights), random.getstate())
    random.setstate(entry.random_state)
    return entry.built


def digest(weights: Iterable[Any]) -> str:
    """SHA-256 of their values."""
    total = hashlib.sha256()
    for weight in weights:
        total.update(np.asarray(weight).tobytes())
    return total.hexdigest()
