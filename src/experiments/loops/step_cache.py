"""What is made for a model once, and anew when the model is compiled anew."""

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import keras

Made = TypeVar("Made")


class _Entry(NamedTuple, Generic[Made]):
    key: Hashable
    metrics: list[keras.Metric]
    made: Made


class OncePerCompilation(Generic[Made]):
    """The last thing made for each model alone, as Keras keeps its compiled step.

    Neither the thing nor its key may hold the model, which would live for ever.
    """

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[keras.Model, _Entry[Made]] = weakref.WeakKeyDictionary()

    def get(self, model: keras.Model, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gave for this model and an equal `key`, unless the model was compiled since."""
        entry = self._entries.get(model)
        # compiling creates new metrics, and a traced step updates those it was traced with
        metrics = list(map(id, model.metrics))
        if entry is None or entry.key != key or list(map(id, entry.metrics)) != metrics:
            entry = self._entries[model] = _Entry(key, list(model.metrics), make())
        return entry.made
