"""The weights of the best epoch: which they are, that they are whole, and what a run does without them."""

import logging
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.small_training import again, assert_equal, compiled, damage, names, scripted, small_splits, trained

from experiments.checkpoints.best import best_predictions
from experiments.checkpoints.layout import BEST
from experiments.checkpoints.store import find, read_state
from experiments.checkpoints.training_state import weights
from experiments.data import Splits
from experiments.errors import ExperimentError
from experiments.loops import Position
from experiments.loops.evaluation import Evaluation


@pytest.fixture(scope="module", name="splits")
def six_steps() -> Splits:
    return small_splits()


@pytest.mark.parametrize(("mode", "value", "epoch"), [("min", 0.1, 1), ("max", 0.4, 0)])
def test_the_best_epoch_by_the_monitor(tmp_path: Path, splits: Splits, mode: str, value: float, epoch: int) -> None:
    keeper, script, model = scripted(tmp_path, splits, [0.4, 0.1, 0.1], mode)
    assert keeper.restore_best(model) == (value, epoch)
    assert_equal(model.get_weights(), script.weights[epoch])
    kept = read_state(Path(find(tmp_path, BEST)))
    assert (kept["metric"], kept["value"], kept["epoch"]) == ("val_loss", value, epoch)
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


def test_weights_of_a_later_epoch_are_not_taken_for_the_best(tmp_path: Path, splits: Splits) -> None:
    """A kill after they were written, and before the checkpoint that knows of them."""
    model, keeper = trained(tmp_path, splits)
    assert again(tmp_path, model)[0].best == keeper.best
    later = tf.train.CheckpointManager(weights(model), str(tmp_path / BEST), 1, checkpoint_name=BEST)
    later.save(checkpoint_number=99)
    assert again(tmp_path, model)[0].best is None


ENDINGS = (".index", ".data-00000-of-00001", ".npz", ".json")
VALUES = [0.4, 0.1, 0.3, 0.2]
"""Of four epochs, of which the second is the best."""


@pytest.fixture(scope="module")
def expected(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The weights after each epoch of a training that nothing happens to."""
    keras.utils.set_random_seed(3)
    whole, script, model = scripted(tmp_path_factory.mktemp("whole"), splits, VALUES)
    assert whole.restore_best(model) == (0.1, 1)
    return script.weights


@pytest.fixture(scope="module")
def begun(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same training after three epochs, to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    keras.utils.set_random_seed(3)
    scripted(folder, splits, VALUES[:3])
    return folder


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("lost", [False, True])
def test_damaged_ones_are_made_again(
    tmp_path: Path,
    splits: Splits,
    begun: Path,
    expected: list[Any],
    caplog: pytest.LogCaptureFixture,
    ending: str,
    lost: bool,
) -> None:
    """By the newest checkpoint that did not know of them yet; as if nothing had happened."""
    folder = shutil.copytree(begun, tmp_path / "damaged")
    file = folder / BEST / f"best-2{ending}"
    file.unlink() if lost else damage(file)
    with caplog.at_level(logging.WARNING, logger="experiments.checkpoints.store"):
        keeper, start = again(folder, compiled(splits))
    assert (start.epoch, start.step, keeper.best) == (1, 0, None)
    newest, before = caplog.messages
    assert newest.startswith(f"The checkpoint {folder}/ckpt-18 (its best weights: ")
    assert before.startswith(f"The checkpoint {folder}/ckpt-12 (its best weights: ")
    assert before.endswith(") is corrupt; resuming from checkpoint 6, the latest valid one.")
    resumed, script, model = scripted(folder, splits, VALUES)
    assert resumed.restore_best(model) == (0.1, 1)
    assert_equal(model.get_weights(), expected[1])
    assert_equal(script.weights[-1], expected[-1])


def test_all_of_them_lost(tmp_path: Path, splits: Splits) -> None:
    model, _ = trained(tmp_path, splits)
    for path in (tmp_path / BEST).iterdir():
        path.unlink()
    assert again(tmp_path, model)[1] == Position()


def test_damage_during_the_training(tmp_path: Path, splits: Splits) -> None:
    keeper, _, model = scripted(tmp_path, splits, [0.4, 0.1])
    damage(tmp_path / BEST / "best-2.index")
    with pytest.raises(ExperimentError) as error:
        keeper.restore_best(model)
    assert str(error.value) == (
        f"'{tmp_path}/best/best-2' is corrupt: best-2.index has changed since it was written. Expected the best "
        "weights as they were written. Set resume=last to repeat the training that is lost."
    )


def test_one_best_is_kept(tmp_path: Path, splits: Splits) -> None:
    scripted(tmp_path, splits, [0.4, 0.3, 0.1])
    assert sorted(path.name for path in (tmp_path / BEST).iterdir()) == [
        *sorted(f"best-3{ending}" for ending in ENDINGS),
        "checkpoint",
    ]
