"""Checkpoints that are kept during training, and the state that is restored from them."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.small_training import (
    DEFAULTS,
    STEP,
    again,
    assert_equal,
    compiled,
    damage,
    names,
    scripted,
    small_splits,
    trained,
)

from experiments.checkpoints.callback import Checkpoints
from experiments.checkpoints.layout import BEST
from experiments.checkpoints.store import find
from experiments.checkpoints.training_state import TrainingState, restore_weights
from experiments.cli.signals import Interruption
from experiments.data import Splits
from experiments.errors import TrackingError
from experiments.loops import FitLoop, Loop, Position, TapeLoop


@pytest.fixture(scope="module", name="splits")
def six_steps() -> Splits:
    return small_splits()


@pytest.fixture(scope="module")
def two_epochs(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a finished training, to be read or copied."""
    folder = tmp_path_factory.mktemp("two_epochs")
    trained(folder, splits)
    return folder


EVERY_FOUR = ["ckpt-10", "ckpt-12", "ckpt-16", "ckpt-18", "ckpt-4", "ckpt-6"]
KEPT: dict[int, list[tuple[dict[str, Any], list[str]]]] = {
    1: [
        ({}, ["ckpt-12", "ckpt-18", "ckpt-6"]),
        ({"max_to_keep": 2}, ["ckpt-12", "ckpt-18"]),
        ({"name": "weights"}, ["weights-12", "weights-18", "weights-6"]),
        ({"every_n_steps": 4, "max_to_keep": 99}, EVERY_FOUR),
        ({"every_n_minutes": 1e-9, "max_to_keep": 99}, [f"ckpt-{step}" for step in range(1, 19)]),
    ],
    4: [({"every_n_steps": 3, "max_to_keep": 99}, EVERY_FOUR)],
}
"""Steps per execution -> options, and the checkpoints that are left after three epochs."""


@pytest.mark.parametrize("steps_per_execution", KEPT)
def test_options_decide_which_checkpoints_are_kept(tmp_path: Path, splits: Splits, steps_per_execution: int) -> None:
    """Fills each folder with a separate callback in the same training."""
    model, cases = compiled(splits), KEPT[steps_per_execution]
    callbacks = [
        Checkpoints(tmp_path / str(number), replace(DEFAULTS, **options), model=model)
        for number, (options, _) in enumerate(cases)
    ]
    loop = TapeLoop(STEP, steps_per_execution, jit_compile=False)
    loop(model, splits, epochs=3, start=Position(), callbacks=callbacks)
    for number, (options, expected) in enumerate(cases):
        assert names(tmp_path / str(number)) == sorted(expected), options


def test_plain_restore_of_tutorial_works(tmp_path: Path, splits: Splits) -> None:
    _, script, _ = scripted(tmp_path, splits, [0.4, 0.1])
    fresh = compiled(splits)
    latest = tf.train.latest_checkpoint(str(tmp_path))
    tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer).restore(latest).expect_partial()
    assert int(fresh.optimizer.iterations) == 12
    # Callbacks see the averages at the end of an epoch. The checkpoint contains the weights and the averages.
    fresh.optimizer.finalize_variable_values(fresh.trainable_variables)
    assert_equal(fresh.get_weights(), script.weights[-1])


def test_training_state_is_complete(tmp_path: Path, splits: Splits) -> None:
    """Weights, optimizer, moving averages, metrics, seeds of dropout and counters are restored bit for bit."""
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


def test_counters_are_the_position_to_resume_from(tmp_path: Path, splits: Splits) -> None:
    trained(tmp_path, splits, every_n_steps=4, max_to_keep=99)
    positions = {}
    for step in (4, 6, 10, 12):
        state = TrainingState(compiled(splits))
        state.checkpoint.restore(find(tmp_path, str(step)))
        positions[step] = (int(state.epoch), int(state.step))
    assert positions == {4: (0, 4), 6: (1, 0), 10: (1, 4), 12: (2, 0)}


def test_find_returns_best_latest_or_number(two_epochs: Path) -> None:
    assert [Path(find(two_epochs, which)).name for which in ("6", "latest", "best")][:2] == ["ckpt-6", "ckpt-12"]
    assert find(two_epochs, "best").startswith(str(two_epochs / BEST / "best-"))
    with pytest.raises(TrackingError) as error:
        find(two_epochs, "7")
    assert str(error.value) == (
        f"checkpoint=7 is not a checkpoint of {two_epochs}: expected one of 6, 12, latest, best. Choose one of these."
    )


@pytest.mark.parametrize(("which", "other"), [("best", "latest"), ("latest", "best"), ("6", "best")])
@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001", ".npz"])
def test_corrupt_checkpoint_is_refused_with_an_alternative(
    tmp_path: Path, two_epochs: Path, which: str, other: str, ending: str
) -> None:
    shutil.copytree(two_epochs, tmp_path, dirs_exist_ok=True)
    prefix = Path(find(tmp_path, which))
    damage(prefix.with_name(prefix.name + ending))
    with pytest.raises(TrackingError) as error:
        find(tmp_path, which, owner="run 0123")
    assert str(error.value) == (
        f"checkpoint={which} of run 0123 is corrupt: {prefix.name}{ending} has changed since it was written. Expected "
        f"the files as they were written. Choose another one, such as checkpoint={other}."
    )
    assert find(tmp_path, other)


def test_find_in_folder_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"expected one of none, as no checkpoint was written\."):
        find(tmp_path, "latest")


def test_moved_checkpoints_can_be_restored(tmp_path: Path, two_epochs: Path, splits: Splits) -> None:
    """Checkpoints have another path after a download from the tracking store."""
    shutil.copytree(two_epochs, tmp_path / "here")
    before, after = compiled(splits), compiled(splits)
    for which in ("latest", BEST):
        restore_weights(before, find(tmp_path / "here", which))
        (tmp_path / "here").rename(tmp_path / "there")
        restore_weights(after, find(tmp_path / "there", which))
        (tmp_path / "there").rename(tmp_path / "here")
        for mine, theirs in zip(before.get_weights(), after.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_weights_of_other_shape_are_refused(two_epochs: Path, splits: Splits) -> None:
    with pytest.raises(ValueError, match="shape"):
        restore_weights(compiled(splits, hidden=9), find(two_epochs, "latest"))


def test_list_of_tensorflow_contains_only_valid_checkpoints(tmp_path: Path, two_epochs: Path, splits: Splits) -> None:
    """Otherwise, TensorFlow would keep a lost or corrupt checkpoint instead of a valid one."""
    shutil.copytree(two_epochs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ckpt-12.json").unlink()
    assert again(tmp_path, compiled(splits))[1].epoch == 1
    assert find(tmp_path, "latest").endswith("ckpt-6")
    with pytest.raises(TrackingError, match=r"expected one of 6, latest, best\."):
        find(tmp_path, "12")


class StopAt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.model.stop_training = batch == 2


@pytest.mark.parametrize("loop", [FitLoop(1, jit_compile=False), TapeLoop(STEP, 1, jit_compile=False)])
def test_training_stopped_by_callback_within_epoch_resumes_after_it(tmp_path: Path, splits: Splits, loop: Loop) -> None:
    """The last checkpoint is at the end of that epoch, even if every step saves one."""
    model = compiled(splits)
    checkpoints = Checkpoints(tmp_path, replace(DEFAULTS, every_n_steps=1), model=model)
    history = loop(model, splits, epochs=3, start=Position(), callbacks=[StopAt(), checkpoints])
    found, start = again(tmp_path, model)
    assert (start.epoch, start.step, start.stopped) == (1, 0, True)
    assert len(history["val_loss"]) == 1
    resumed = loop(model, splits, epochs=3, start=start, callbacks=[StopAt(), found])
    assert resumed == history


@pytest.mark.parametrize("loop", [FitLoop(1, jit_compile=False), TapeLoop(STEP, 1, jit_compile=False)])
def test_signal_in_last_validation_resumes_with_that_validation(tmp_path: Path, splits: Splits, loop: Loop) -> None:
    model, interruption = compiled(splits), Interruption()
    checkpoints = Checkpoints(tmp_path, DEFAULTS, model=model, interruption=interruption)

    class Signal(StopAt):
        def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            interruption.signal = signal.SIGTERM

    with pytest.raises(SystemExit):
        loop(model, splits, epochs=3, start=Position(), callbacks=[Signal(), checkpoints])
    found, start = again(tmp_path, model)
    assert (start.epoch, start.step, start.stopped) == (0, 6, True)
    assert len(loop(model, splits, epochs=3, start=start, callbacks=[found])["val_loss"]) == 1


def test_automatic_checkpoints_take_at_most_one_percent_of_time(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes 50 s and a checkpoint 2 s. The first, the last, and those that fit into 1 % are written."""
    now = [0]

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            now[0] += 50

    def saved(prefix: str) -> None:
        now[0] += 2

    monkeypatch.setattr("experiments.checkpoints.callback.time", SimpleNamespace(monotonic=lambda: now[0]))
    model = compiled(splits)
    options = replace(DEFAULTS, every_epoch="auto", max_to_keep=99)
    checkpoints = Checkpoints(tmp_path, options, model=model, saved=saved)
    loop = TapeLoop(STEP, 1, jit_compile=False)
    loop(model, splits, epochs=14, start=Position(), callbacks=[Epoch(), checkpoints])
    assert names(tmp_path) == sorted(f"ckpt-{6 * epoch}" for epoch in (1, 8, 12, 14))
