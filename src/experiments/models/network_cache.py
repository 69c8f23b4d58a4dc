"""Shares frozen networks between runs of a process. Building one takes longer than training a head on its features."""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Network(NamedTuple):
    """A network. `loaded` is True if its weights are loaded already."""

    network: keras.Model
    loaded: bool


class _Entry(NamedTuple):
    built: Network
    weights: str
    random_state: tuple[Any, ...]


_last: dict[Hashable, _Entry] = {}
"""At most one entry, the last. Successive runs mostly differ in other settings."""


def shared(key: Hashable, build: Callable[[], Network]) -> Network:
    """Returns the last network if `key` and precision are equal and it has not been changed; otherwise calls `build`.

    Building draws seeds from Python's generator, so the generator's state is part of the key. Afterwards the generator
    is in the state after building, so that later draws are the same with and without the cache.
    """
    if tf.distribute.has_strategy():  # Variables belong to the strategy that created them.
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
    """Returns the SHA-256 of the values of the weights."""
    total = hashlib.sha256()
    for weight in weights:
        total.update(np.asarray(weight).tobytes())
    return total.hexdigest()
