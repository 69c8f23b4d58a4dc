"""The weights of the best epoch: their selection, their verification, and resuming without them."""

import logging
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.small_training import again, assert_equal, compiled, damage, names, scripted, small_splits, trained

from experiments.checkpoints.best import BestWeights, best_predictions
from experiments.checkpoints.layout import BEST
from experiments.checkpoints.store import commit, find, read_state
from experiments.checkpoints.training_state import left_out, restore_weights, weights
from experiments.data import Splits
from experiments.errors import ExperimentError
from experiments.loops import Position
from experiments.loops.evaluation import Evaluation


@pytest.fixture(scope="module", name="splits")
def six_steps() -> Splits:
    return small_splits()


@pytest.mark.parametrize(("mode", "value", "epoch"), [("min", 0.1, 1), ("max", 0.4, 0)])
def test_best_epoch_follows_monitored_metric_and_mode(
    tmp_path: Path, splits: Splits, mode: str, value: float, epoch: int
) -> None:
    checkpoints, script, model = scripted(tmp_path, splits, [0.4, 0.1, 0.1], mode)
    assert checkpoints.restore_best(model) == (value, epoch)
    assert_equal(model.get_weights(), script.weights[epoch])
    kept = read_state(Path(find(tmp_path, BEST)))
    assert (kept["metric"], kept["value"], kept["epoch"]) == ("val_loss", value, epoch)
    assert names(tmp_path / BEST) == [f"best-{epoch + 1}"]


def test_nan_and_infinity_are_never_best(tmp_path: Path, splits: Splits) -> None:
    checkpoints, _, model = scripted(tmp_path, splits, [float("nan"), 3.0, float("-inf")])
    assert checkpoints.restore_best(model) == (3.0, 1)


def test_restoring_best_without_finite_metric_is_an_error(tmp_path: Path, splits: Splits) -> None:
    checkpoints, _, model = scripted(tmp_path, splits, [float("nan")])
    with pytest.raises(ExperimentError) as error:
        checkpoints.restore_best(model)
    assert str(error.value) == (
        "val_loss was never a finite number, so there is no best epoch. "
        "Lower optimizer.learning_rate or set optimizer.global_clipnorm=1."
    )


def test_predictions_of_best_epoch_are_saved(tmp_path: Path, splits: Splits) -> None:
    checkpoints, _, model = scripted(tmp_path, splits, [0.1, 0.5])
    checkpoints.restore_best(model)
    _, expected = Evaluation(model)(splits.validation)
    kept = best_predictions(tmp_path)
    np.testing.assert_array_equal(kept.labels, expected.labels)
    np.testing.assert_array_equal(kept.outputs, expected.outputs)


def test_weights_of_later_epoch_are_not_taken_for_best(tmp_path: Path, splits: Splits) -> None:
    """A process was killed after it wrote these weights, and before the checkpoint that refers to them."""
    model, checkpoints = trained(tmp_path, splits)
    assert again(tmp_path, model)[0].best == checkpoints.best
    later = tf.train.CheckpointManager(weights(model), str(tmp_path / BEST), 1, checkpoint_name=BEST)
    later.save(checkpoint_number=99)
    assert again(tmp_path, model)[0].best is None


@pytest.mark.parametrize("earlier", [False, True])
def test_best_weights_of_each_version_are_restored(tmp_path: Path, splits: Splits, earlier: bool) -> None:
    """Earlier versions stored the state of the optimizer too."""
    model, checkpoints = trained(tmp_path, splits)
    folder, best = tmp_path / BEST, checkpoints.best
    assert best is not None
    path = find(tmp_path, BEST)
    assert not [name for name, _ in tf.train.list_variables(path) if "optimizer" in name]
    stored = sum(np.prod(shape) for name, shape in tf.train.list_variables(path) if "model/" in name)
    assert stored == sum(np.prod(variable.shape) for variable in model.trainable_variables)
    expected = compiled(splits)
    restore_weights(expected, path)
    if earlier:
        state = read_state(Path(path))
        extras = tf.train.Checkpoint(**left_out("variable", expected, expected.variables))
        before = tf.train.Checkpoint(model=expected, extras=extras)
        number = int(path.rpartition("-")[2])
        tf.train.CheckpointManager(before, str(folder), 1, checkpoint_name=BEST).save(checkpoint_number=number)
        commit(path, state)
        assert [name for name, _ in tf.train.list_variables(path) if "optimizer" in name]
    fresh, plain = compiled(splits), compiled(splits)
    BestWeights(tmp_path, fresh, "val_loss").restore(fresh, best)
    assert_equal(fresh.variables, expected.variables)
    tf.train.Checkpoint(model=plain).restore(tf.train.latest_checkpoint(str(folder))).expect_partial()
    assert_equal(plain.trainable_variables, expected.trainable_variables)
    assert int(plain.optimizer.iterations) == 0


ENDINGS = (".index", ".data-00000-of-00001", ".npz", ".json")
VALUES = [0.4, 0.1, 0.3, 0.2]
"""Validation losses of four epochs. The second epoch is the best."""


@pytest.fixture(scope="module")
def expected(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Returns the weights after each epoch of an uninterrupted training."""
    keras.utils.set_random_seed(3)
    checkpoints, script, model = scripted(tmp_path_factory.mktemp("uninterrupted"), splits, VALUES)
    assert checkpoints.restore_best(model) == (0.1, 1)
    return script.weights


@pytest.fixture(scope="module")
def begun(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the same training after three epochs, to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    keras.utils.set_random_seed(3)
    scripted(folder, splits, VALUES[:3])
    return folder


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("lost", [False, True])
def test_corrupt_or_lost_best_weights_are_recreated(
    tmp_path: Path,
    splits: Splits,
    begun: Path,
    expected: list[Any],
    caplog: pytest.LogCaptureFixture,
    ending: str,
    lost: bool,
) -> None:
    """The run resumes from the newest checkpoint that does not refer to them, and ends as if uninterrupted."""
    folder = shutil.copytree(begun, tmp_path / "corrupt")
    file = folder / BEST / f"best-2{ending}"
    file.unlink() if lost else damage(file)
    with caplog.at_level(logging.WARNING, logger="experiments.checkpoints.store"):
        checkpoints, start = again(folder, compiled(splits))
    assert (start.epoch, start.step, checkpoints.best) == (1, 0, None)
    newest, before = caplog.messages
    assert newest.startswith(f"The checkpoint {folder}/ckpt-18 (its best weights: ")
    assert before.startswith(f"The checkpoint {folder}/ckpt-12 (its best weights: ")
    assert before.endswith(") is corrupt; resuming from checkpoint 6, the latest valid one.")
    resumed, script, model = scripted(folder, splits, VALUES)
    assert resumed.restore_best(model) == (0.1, 1)
    assert_equal(model.get_weights(), expected[1])
    assert_equal(script.weights[-1], expected[-1])


def test_resume_starts_from_beginning_if_all_best_weights_are_lost(tmp_path: Path, splits: Splits) -> None:
    model, _ = trained(tmp_path, splits)
    for path in (tmp_path / BEST).iterdir():
        path.unlink()
    assert again(tmp_path, model)[1] == Position()


def test_best_weights_corrupted_during_training_are_an_error(tmp_path: Path, splits: Splits) -> None:
    checkpoints, _, model = scripted(tmp_path, splits, [0.4, 0.1])
    damage(tmp_path / BEST / "best-2.index")
    with pytest.raises(ExperimentError) as error:
        checkpoints.restore_best(model)
    assert str(error.value) == (
        f"'{tmp_path}/best/best-2' is corrupt: best-2.index has changed since it was written. Expected the best "
        "weights as they were written. Set resume=last to repeat the training that is lost."
    )


def test_only_latest_best_weights_are_kept(tmp_path: Path, splits: Splits) -> None:
    scripted(tmp_path, splits, [0.4, 0.3, 0.1])
    assert sorted(path.name for path in (tmp_path / BEST).iterdir()) == [
        *sorted(f"best-3{ending}" for ending in ENDINGS),
        "checkpoint",
    ]
