"""What is kept of a run's state, and what can be read back."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.checkpoints import (
    BEST,
    Checkpoints,
    best_predictions,
    find,
    restore_weights,
)
from experiments.data import Splits, from_arrays
from experiments.errors import ExperimentError, TrackingError
from experiments.interruption import Interruption
from experiments.loops import FitLoop, Loop, Position, TapeLoop
from experiments.loops.evaluation import Evaluation, build_variables
from experiments.models.mlp import mlp
from experiments.training_state import TrainingState, weights

STEP = "experiments.loops.tape.train_step"
DEFAULTS: dict[str, Any] = {
    "metric": "val_loss",
    "mode": "min",
    "max_to_keep": 3,
    "name": "ckpt",
    "every_epoch": True,
    "every_n_steps": None,
    "every_n_minutes": None,
}


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Six steps an epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (31, 6, 6, 1), np.uint8), rng.integers(0, 3, 31)
    return from_arrays((x[:22], y[:22]), (x[22:], y[22:]), batch_size=4, shuffle=True, seed=5)


def compiled(splits: Splits, hidden: int = 8) -> keras.Model:
    model = mlp([hidden], 0.2, input_shape=(6, 6, 1), num_classes=3)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01, use_ema=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    build_variables(model, splits.validation)
    return model


def trained(folder: Path, splits: Splits, epochs: int = 2, **options: Any) -> tuple[keras.Model, Checkpoints]:
    steps_per_execution = options.pop("steps_per_execution", 1)
    model = compiled(splits)
    keeper = Checkpoints(folder, model=model, **(DEFAULTS | options))
    loop = TapeLoop(STEP, steps_per_execution, jit_compile=False)
    loop(model, splits, epochs=epochs, start=Position(), callbacks=[keeper])
    return model, keeper


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.index"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["ckpt-12", "ckpt-18", "ckpt-6"]),
        ({"max_to_keep": 2}, ["ckpt-12", "ckpt-18"]),
        ({"name": "weights"}, ["weights-12", "weights-18", "weights-6"]),
        ({"every_n_steps": 4, "max_to_keep": 99}, ["ckpt-10", "ckpt-12", "ckpt-16", "ckpt-18", "ckpt-4", "ckpt-6"]),
        (
            {"every_n_steps": 3, "max_to_keep": 99, "steps_per_execution": 4},
            ["ckpt-10", "ckpt-12", "ckpt-16", "ckpt-18", "ckpt-4", "ckpt-6"],
        ),
        ({"every_n_minutes": 1e-9, "max_to_keep": 99}, [f"ckpt-{step}" for step in range(1, 19)]),
    ],
)
def test_what_is_kept(tmp_path: Path, splits: Splits, options: dict[str, Any], expected: list[str]) -> None:
    trained(tmp_path, splits, epochs=3, **options)
    assert names(tmp_path) == sorted(expected)


def test_the_tutorials_plain_restore_works(tmp_path: Path, splits: Splits) -> None:
    _, script, _ = scripted(tmp_path, splits, [0.4, 0.1])
    fresh = compiled(splits)
    latest = tf.train.latest_checkpoint(str(tmp_path))
    tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer).restore(latest).expect_partial()
    assert int(fresh.optimizer.iterations) == 12
    assert_equal(fresh.get_weights(), script.weights[-1])


def test_the_training_state_is_complete(tmp_path: Path, splits: Splits) -> None:
    """Weights, optimizer, moving averages, metrics, the seeds of dropout and the counters: all, bit for bit."""
    model = compiled(splits)
    model.fit(splits.train.epoch(0), shuffle=False, verbose=0)
    state = TrainingState(model)
    state.epoch.assign(1)
    state.step.assign(4)
    path = state.checkpoint.save(str(tmp_path / "ckpt"))
    keras.utils.set_random_seed(9)
    fresh = compiled(splits)
    restored = TrainingState(fresh)
    restored.checkpoint.restore(path).assert_consumed()
    assert (int(restored.epoch), int(restored.step)) == (1, 4)
    assert any("seed" in variable.path for variable in model.variables)
    assert np.any(model.metrics_variables[0])
    assert_equal(fresh.variables, model.variables)
    assert_equal(fresh.optimizer.variables, model.optimizer.variables)
    assert_equal(fresh.metrics_variables, model.metrics_variables)


def assert_equal(mine: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counters_say_where_to_go_on(tmp_path: Path, splits: Splits) -> None:
    trained(tmp_path, splits, every_n_steps=4, max_to_keep=99)
    positions = {}
    for step in (4, 6, 10, 12):
        state = TrainingState(compiled(splits))
        state.checkpoint.restore(find(tmp_path, str(step)))
        positions[step] = (int(state.epoch), int(state.step))
    assert positions == {4: (0, 4), 6: (1, 0), 10: (1, 4), 12: (2, 0)}


class Scripted(keras.callbacks.Callback):
    """Says what the validation loss was, before the keeper hears of it."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self._values = values
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        logs["val_loss"] = self._values[epoch]
        self.weights.append(self.model.get_weights())


def scripted(folder: Path, splits: Splits, values: list[float], mode: str = "min") -> tuple[Checkpoints, Scripted, Any]:
    model, script = compiled(splits), Scripted(values)
    keeper = Checkpoints(folder, model=model, **(DEFAULTS | {"mode": mode}))
    loop = TapeLoop(STEP, 1, jit_compile=False)
    loop(model, splits, epochs=len(values), start=Position(), callbacks=[script, keeper])
    return keeper, script, model


@pytest.mark.parametrize(("mode", "value", "epoch"), [("min", 0.1, 1), ("max", 0.4, 0)])
def test_the_best_epoch_by_the_monitor(tmp_path: Path, splits: Splits, mode: str, value: float, epoch: int) -> None:
    keeper, script, model = scripted(tmp_path, splits, [0.4, 0.1, 0.1], mode)
    assert keeper.restore_best(model) == (value, epoch)
    assert_equal(model.get_weights(), script.weights[epoch])
    kept = json.loads((tmp_path / BEST / "best.json").read_text())
    assert kept == {"metric": "val_loss", "value": value, "epoch": epoch}
    assert names(tmp_path / BEST) == [f"best-{epoch + 1}"]


def test_the_best_ignores_what_is_not_a_number(tmp_path: Path, splits: Splits) -> None:
    keeper, _, model = scripted(tmp_path, splits, [float("nan"), 3.0, float("-inf")])
    assert keeper.restore_best(model) == (3.0, 1)


def test_no_best_at_all(tmp_path: Path, splits: Splits) -> None:
    keeper, _, model = scripted(tmp_path, splits, [float("nan")])
    with pytest.raises(ExperimentError) as error:
        keeper.restore_best(model)
    assert str(error.value) == (
        "val_loss was never a finite number, so there is no best epoch. "
        "Lower optimizer.learning_rate or set optimizer.global_clipnorm=1."
    )


def test_the_predictions_of_the_best_epoch_are_kept(tmp_path: Path, splits: Splits) -> None:
    keeper, _, model = scripted(tmp_path, splits, [0.1, 0.5])
    keeper.restore_best(model)
    _, expected = Evaluation(model)(splits.validation)
    kept = best_predictions(tmp_path)
    np.testing.assert_array_equal(kept.labels, expected.labels)
    np.testing.assert_array_equal(kept.outputs, expected.outputs)


def test_finding_a_checkpoint(tmp_path: Path, splits: Splits) -> None:
    trained(tmp_path, splits)
    assert [Path(find(tmp_path, which)).name for which in ("6", "latest", "best")][:2] == ["ckpt-6", "ckpt-12"]
    assert find(tmp_path, "best").startswith(str(tmp_path / BEST / "best-"))
    with pytest.raises(TrackingError) as error:
        find(tmp_path, "7")
    assert str(error.value) == (
        f"checkpoint=7 is not in {tmp_path}: expected one of 6, 12, latest, best. Choose one of these."
    )


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"expected one of none: it is empty\."):
        find(tmp_path, "latest")


def test_a_folder_that_has_moved(tmp_path: Path, splits: Splits) -> None:
    """As when it was downloaded from the tracking store."""
    trained(tmp_path / "here", splits)
    before, after = compiled(splits), compiled(splits)
    for which in ("latest", BEST):
        restore_weights(before, find(tmp_path / "here", which))
        (tmp_path / "here").rename(tmp_path / "there")
        restore_weights(after, find(tmp_path / "there", which))
        (tmp_path / "there").rename(tmp_path / "here")
        for mine, theirs in zip(before.get_weights(), after.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_weights_of_another_model(tmp_path: Path, splits: Splits) -> None:
    trained(tmp_path, splits)
    with pytest.raises(ValueError, match="shape"):
        restore_weights(compiled(splits, hidden=9), find(tmp_path, "latest"))


def again(folder: Path, model: keras.Model) -> tuple[Checkpoints, Position]:
    keeper = Checkpoints(folder, model=model, **DEFAULTS)
    return keeper, keeper.restore()


def test_weights_of_a_later_epoch_are_not_taken_for_the_best(tmp_path: Path, splits: Splits) -> None:
    """A kill after they were written, and before the checkpoint that knows of them."""
    model, keeper = trained(tmp_path, splits)
    assert again(tmp_path, model)[0].best == keeper.best
    later = tf.train.CheckpointManager(weights(model), str(tmp_path / BEST), 1, checkpoint_name=BEST)
    later.save(checkpoint_number=99)
    assert again(tmp_path, model)[0].best is None


def test_the_list_of_checkpoints_holds_what_counts(tmp_path: Path, splits: Splits) -> None:
    """Else one that is gone or damaged is kept instead of one that is whole."""
    model, _ = trained(tmp_path, splits, epochs=3)
    (tmp_path / "ckpt-18.json").unlink()
    assert again(tmp_path, model)[1].epoch == 2
    assert find(tmp_path, "latest").endswith("ckpt-12")
    with pytest.raises(TrackingError, match=r"expected one of 6, 12, latest, best\."):
        find(tmp_path, "18")


class StopAt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.model.stop_training = batch == 2


@pytest.mark.parametrize("loop", [FitLoop(1, jit_compile=False), TapeLoop(STEP, 1, jit_compile=False)])
def test_training_that_a_callback_ends_within_an_epoch(tmp_path: Path, splits: Splits, loop: Loop) -> None:
    """The end of that epoch belongs to what was done, whatever is saved in between."""
    model = compiled(splits)
    keeper = Checkpoints(tmp_path, model=model, **(DEFAULTS | {"every_n_steps": 1}))
    history = loop(model, splits, epochs=3, start=Position(), callbacks=[StopAt(), keeper])
    found, start = again(tmp_path, model)
    assert (start.epoch, start.step, start.stopped) == (1, 0, True)
    assert len(history["val_loss"]) == 1
    resumed = loop(model, splits, epochs=3, start=start, callbacks=[StopAt(), found])
    assert resumed == history


@pytest.mark.parametrize("loop", [FitLoop(1, jit_compile=False), TapeLoop(STEP, 1, jit_compile=False)])
def test_a_signal_in_the_last_validation_of_such_training(tmp_path: Path, splits: Splits, loop: Loop) -> None:
    model, interruption = compiled(splits), Interruption()
    keeper = Checkpoints(tmp_path, model=model, interruption=interruption, **DEFAULTS)

    class Signal(StopAt):
        def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            interruption.signal = signal.SIGTERM

    with pytest.raises(SystemExit):
        loop(model, splits, epochs=3, start=Position(), callbacks=[Signal(), keeper])
    found, start = again(tmp_path, model)
    assert (start.epoch, start.step, start.stopped) == (0, 6, True)
    assert len(loop(model, splits, epochs=3, start=start, callbacks=[found])["val_loss"]) == 1


def test_writing_takes_its_share_of_the_time(tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of 50 s and a checkpoint of 2 s, by this clock: the first, those that 1 % has time for, and the last."""
    now = [0]

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            now[0] += 50

    def saved(prefix: str) -> None:
        now[0] += 2

    monkeypatch.setattr("experiments.checkpoints.time", SimpleNamespace(monotonic=lambda: now[0]))
    model = compiled(splits)
    options = DEFAULTS | {"every_epoch": "auto", "max_to_keep": 99}
    keeper = Checkpoints(tmp_path, model=model, saved=saved, **options)
    loop = TapeLoop(STEP, 1, jit_compile=False)
    loop(model, splits, epochs=14, start=Position(), callbacks=[Epoch(), keeper])
    assert names(tmp_path) == sorted(f"ckpt-{6 * epoch}" for epoch in (1, 8, 12, 14))
