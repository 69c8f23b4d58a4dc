"""State of callbacks is restored when a run resumes, or reported as unsaved."""

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from experiments.checkpoints.callback_state import (
    KERAS,
    Watch,
    get_state,
    keeps_state,
    random_state,
    set_random_state,
    set_state,
)
from experiments.runs.callbacks import StopWhenDiverged


class Counter(keras.callbacks.Callback):
    """Has state, but no `get_state`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.last = np.zeros(2)
        self.constant = "a"

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.seen.append(epoch)
        self.last = self.last + 1


class StatefulCounter(Counter):
    def get_state(self) -> dict[str, Any]:
        return {"seen": self.seen, "last": self.last}

    def set_state(self, state: dict[str, Any]) -> None:
        self.seen, self.last = state["seen"], state["last"]


def run_epochs(callback: keras.callbacks.Callback, values: list[float], first: int = 0) -> keras.callbacks.Callback:
    """Passes the losses of some epochs to a callback that has a model of its own."""
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values, first):
        callback.on_epoch_end(epoch, {"val_loss": value})
    return callback


def test_state_of_custom_callback_is_restored() -> None:
    before, after = run_epochs(StatefulCounter(), [0.1, 0.2]), StatefulCounter()
    assert keeps_state(before)
    set_state(after, get_state(before))
    assert after.seen == [0, 1]
    np.testing.assert_array_equal(after.last, [2, 2])


def stopping() -> keras.callbacks.EarlyStopping:
    return keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.05, restore_best_weights=True)


def plateau() -> keras.callbacks.ReduceLROnPlateau:
    return keras.callbacks.ReduceLROnPlateau("val_loss", patience=2, cooldown=1, min_delta=0.05)


@pytest.mark.parametrize("make", [stopping, plateau])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_state_of_keras_callbacks_is_restored(make: Any, stop: int) -> None:
    """Improvements below min_delta do not count, before and after: Keras flips the sign of min_delta once."""
    values = [0.5, 0.48, 0.3, 0.29, 0.28]
    uninterrupted, first, second = run_epochs(make(), values), run_epochs(make(), values[:stop]), make()
    run_epochs(second, [])
    set_state(second, get_state(first))
    for epoch, value in enumerate(values[stop:], stop):
        second.on_epoch_end(epoch, {"val_loss": value})
    (names,) = (names for kind, names in KERAS.items() if isinstance(uninterrupted, kind))
    for name in set(names) - {"best_weights"}:
        assert getattr(second, name) == getattr(uninterrupted, name), name
    assert second.min_delta == uninterrupted.min_delta
    assert second.model.stop_training == uninterrupted.model.stop_training


def test_best_weights_of_early_stopping_are_restored() -> None:
    first, second = run_epochs(stopping(), [0.5, 0.2]), run_epochs(stopping(), [])
    set_state(second, get_state(first))
    for mine, theirs in zip(second.best_weights, first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_unsaved_state_is_reported() -> None:
    callbacks: dict[str, keras.callbacks.Callback] = {
        "mine": Counter(),
        "stateful": StatefulCounter(),
        "keras": stopping(),
        "(divergence)": StopWhenDiverged(Path(), max_loss=None),
    }
    watch = Watch(callbacks)
    assert watch.unsaved_state() == {}
    for callback in callbacks.values():
        callback.params = {"steps": 3}
        callback.on_epoch_begin(1)
    run_epochs(callbacks["mine"], [0.3])
    run_epochs(callbacks["stateful"], [0.3])
    run_epochs(callbacks["keras"], [0.3])
    assert watch.unsaved_state() == {"mine": ["seen", "last"]}


def test_random_state_is_restored() -> None:
    random.seed(1)
    np.random.seed(1)
    np.random.normal()
    state = random_state()

    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.normal(), float(np.random.random())]

    drawn = draw()
    random.seed(2)
    np.random.seed(2)
    set_random_state(state)
    assert draw() == drawn
