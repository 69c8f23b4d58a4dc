"""Stop of a run with a non-finite or too large loss; the error names the last good checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.checkpoints.store import newest_finite
from experiments.errors import TrainingError
from experiments.runs.callbacks import StopWhenDiverged
from experiments.runs.run import run

REMEDY = "Lower optimizer.learning_rate, or set optimizer.global_clipnorm=1."


def stop_callback(folder: Path, max_loss: float | None) -> keras.callbacks.Callback:
    callback = StopWhenDiverged(folder, max_loss=max_loss)
    callback.set_params({"steps": 10})
    callback.on_epoch_begin(2)
    return callback


def saved(folder: Path, *values: float) -> list[str]:
    """Saves a checkpoint for each value of a variable, with an integer that can never be NaN."""
    variable, count = tf.Variable(0.0, dtype=tf.bfloat16), tf.Variable(0, dtype=tf.int64)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(a=variable, b=count), str(folder), 9)
    paths = []
    for value in values:
        variable.assign(value)
        paths.append(manager.save())
    return paths


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("max_loss", [None, 1e6])
def test_non_finite_loss_stops_training(tmp_path: Path, loss: float, max_loss: float | None) -> None:
    callback = stop_callback(tmp_path, max_loss)
    callback.on_train_batch_end(2, {"loss": 999.0})
    with pytest.raises(TrainingError) as error:
        callback.on_train_batch_end(3, {"loss": loss})
    assert str(error.value) == (
        f"the loss is {loss:g} at step 24 (epoch 3, batch 4): expected a finite number. "
        "No good checkpoint was written before. "
        f"{REMEDY}"
    )


def test_loss_above_max_loss_stops_training(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1.0)
    with pytest.raises(TrainingError) as error:
        stop_callback(tmp_path, 50).on_train_batch_end(0, {"loss": 50.5})
    assert str(error.value) == (
        "the loss is 50.5 at step 21 (epoch 3, batch 1): expected at most monitor.max_loss=50. "
        f"The last good checkpoint is {path}. {REMEDY}"
    )
    stop_callback(tmp_path, None).on_train_batch_end(0, {"loss": 1e30})


def test_checkpoint_with_non_finite_weights_is_skipped(tmp_path: Path) -> None:
    assert newest_finite(tmp_path) is None
    paths = saved(tmp_path, 1.0, 2.0, float("nan"), float("inf"))
    assert newest_finite(tmp_path) == paths[1]
    other = tmp_path / "other"
    saved(other, float("nan"))
    assert newest_finite(other) is None


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_diverging_run_fails_and_names_good_checkpoint(
    composed: Callable[..., DictConfig], tmp_path: Path, empty_store: Path, loop: str
) -> None:
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    overrides = ("model=mlp", "optimizer=sgd", "optimizer.learning_rate=1e20", "data.limit=200", "callbacks=none")
    cfg = composed(*overrides, f"loop={loop}", f"logging.tracking_uri={store}", "checkpoint.every_n_steps=1")
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(TrainingError, match=r"^the loss is .* at step \d+ \(epoch 1, batch \d+\): expected") as error:
        run(cfg, output)
    (failed,) = MlflowClient(store).search_runs(["1"])
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"].startswith("experiments.errors.TrainingError: the loss is ")
    good = str(error.value).partition("The last good checkpoint is ")[2].partition(". Lower")[0]
    assert good == newest_finite(output / "checkpoints")
    reader = tf.train.load_checkpoint(good)
    assert all(
        np.isfinite(reader.get_tensor(name)).all() for name in reader.get_variable_to_shape_map() if "CHECK" not in name
    )
