"""Metrics by which users choose a run, computed from scripted epochs and a scripted clock."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest

from experiments.data import Splits, from_arrays
from experiments.runs import measurements
from experiments.runs.measurements import TrackMetrics
from experiments.tracking.base import Tracker

NAN, INF = math.nan, math.inf
Logged = dict[str, list[tuple[int, float]]]


class RecordingTracker(Tracker):
    def __init__(self) -> None:
        self.logged: Logged = {}

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        for name, value in metrics.items():
            self.logged.setdefault(name, []).append((step, value))


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(measurements, "time", found)
    return found


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Splits with six steps of 4 examples per epoch, the last of which has 2."""
    x, y = np.zeros((31, 6, 6, 1), np.uint8), np.arange(31) % 3
    return from_arrays((x[:22], y[:22]), (x[22:], y[22:]), batch_size=4, shuffle=True, seed=5)


class Training:
    """Calls the callback as a loop does: it sees the history before each epoch."""

    def __init__(self, tracker: Tracker, splits: Splits, mode: str = "max", history: Any = ()) -> None:
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        self.model.compile(optimizer="sgd")
        self.model.history = keras.callbacks.History()
        self.model.history.history = {"val_x": list(history)}
        self.callback = TrackMetrics(tracker, splits.train, "val_x", mode, every_n_steps=None, began=90.0)
        self.callback.set_model(self.model)
        self.callback.set_params({"steps": 6})

    def end(self, epoch: int, value: float) -> None:
        self.callback.on_epoch_end(epoch, {"val_x": value})
        self.model.history.history["val_x"].append(value)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.1, 0.2, 0.2, 0.3],
        [0.3, 0.3, 0.2, 0.3],
        [NAN, 0.1, NAN, 0.2],
        [INF, -INF, 1.0, 2.0],
        [NAN, INF],
        [0.0] * 3,
    ],
    ids=str,
)
@pytest.mark.parametrize("stopped_after", [0, 1, 2])
def test_best_epochs_are_those_of_the_checkpoint(
    splits: Splits, values: list[float], mode: str, stopped_after: int
) -> None:
    """The first of equal values is the best, and a run that is resumed after some epochs continues from its history."""
    tracker = RecordingTracker()
    for begun, part in ((0, values[:stopped_after]), (stopped_after, values[stopped_after:])):
        training = Training(tracker, splits, mode, values[:begun])
        for epoch, value in enumerate(part, begun):
            training.callback.on_epoch_begin(epoch)
            training.end(epoch, value)
    finite = np.where(np.isfinite(values), values, -INF if mode == "max" else INF)
    running = (np.maximum if mode == "max" else np.minimum).accumulate(finite)
    first = [int(np.flatnonzero(finite == best)[0]) for best in running]
    expected = [
        (epoch + 1, values[epoch]) for epoch, best in enumerate(first) if best == epoch and np.isfinite(values[epoch])
    ]
    assert tracker.logged.get("best_val_x", []) == expected
    assert tracker.logged.get("best_epoch", []) == [(step, step) for step, _ in expected]


def test_speeds_leave_out_validation_and_first_step(splits: Splits, clock: Clock) -> None:
    tracker = RecordingTracker()
    training = Training(tracker, splits)
    for epoch, seconds in enumerate([(9.0, 1, 1, 1, 1, 1), (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)]):
        training.callback.on_epoch_begin(epoch)
        clock.now += 2  # until the first batch
        for batch, duration in enumerate(seconds):
            training.callback.on_train_batch_begin(batch)
            clock.now += duration
            training.callback.on_train_batch_end(batch, {"loss": 1.0})
        clock.now += 3  # validation
        training.end(epoch, 0.5)
    assert tracker.logged["seconds_to_first_step"] == [(1, 10 + 2 + 9)]
    assert tracker.logged["seconds_per_epoch"] == [(1, 2 + 14 + 3), (2, 2 + 3 + 3)]
    assert tracker.logged["examples_per_second"] == [(1, 18 / 5), (2, 18 / 2.5)]
    assert all(10 < memory < 1e6 for _, memory in tracker.logged["peak_memory_mb"])


def test_resumed_epoch_counts_its_own_steps_only(splits: Splits, clock: Clock) -> None:
    tracker = RecordingTracker()
    training = Training(tracker, splits, history=[0.1])
    training.callback.on_epoch_begin(1)
    for batch in (3, 5):  # an execution of one step, then one of two
        training.callback.on_train_batch_begin(batch)
        clock.now += 2
        training.callback.on_train_batch_end(batch, {"loss": 1.0})
    training.end(1, 0.5)
    assert "seconds_per_epoch" not in tracker.logged
    assert tracker.logged["examples_per_second"] == [(2, 6 / 2)]
    training.callback.on_epoch_begin(2)
    training.end(2, 0.6)  # stopped during validation: no steps are left
    assert [step for step, _ in tracker.logged["examples_per_second"]] == [2]
    assert [step for step, _ in tracker.logged["best_val_x"]] == [2, 3]


def test_epoch_of_one_step_has_a_speed(splits: Splits, clock: Clock) -> None:
    tracker = RecordingTracker()
    training = Training(tracker, splits)
    training.callback.on_epoch_begin(0)
    training.callback.on_train_batch_begin(0)
    clock.now += 4
    training.callback.on_train_batch_end(5, {"loss": 1.0})
    training.end(0, 0.5)
    assert tracker.logged["examples_per_second"] == [(1, 22 / 4)]
