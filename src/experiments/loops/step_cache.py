"""Caches an object for each model until the model is compiled again."""

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import keras

Made = TypeVar("Made")


class _Entry(NamedTuple, Generic[Made]):
    """A cached object. It keeps its metrics alive, so that no new metric gets the id of an old one."""

    key: Hashable
    metrics: list[keras.Metric]
    made: Made


class OncePerCompilation(Generic[Made]):
    """Caches the last object made for each model, as Keras caches its compiled step.

    Neither the object nor its key may refer to the model, which would then never be released.
    """

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[keras.Model, _Entry[Made]] = weakref.WeakKeyDictionary()

    def get(self, model: keras.Model, key: Hashable, make: Callable[[], Made]) -> Made:
        """Returns the cached object if `key` is equal and the model was not compiled since; otherwise calls `make`."""
        entry = self._entries.get(model)
        # Compiling creates new metrics, and a traced step updates only the metrics that it was traced with.
        metrics = list(map(id, model.metrics))
        if entry is None or entry.key != key or list(map(id, entry.metrics)) != metrics:
            entry = self._entries[model] = _Entry(key, list(model.metrics), make())
        return entry.made
