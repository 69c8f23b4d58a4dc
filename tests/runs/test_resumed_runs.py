"""Runs resumed in this process: with more epochs, and with a corrupt checkpoint."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.checkpoints.callback import Checkpoints
from experiments.config.registry import CONF
from experiments.errors import TrackingError, TrainingError
from experiments.runs.results import Result
from experiments.runs.run import run

pytestmark = pytest.mark.slow

OVERRIDES = (
    *("model=mlp", "model.dropout=0.3", "data.limit=200", "progress=none", "logging.system_metrics=false"),
    *("logging.log_figures=false", "tensorboard.graph=false", "tensorboard.images=0"),
)
WITHOUT_MODEL = "logging.log_model=false"
Train = Callable[..., Result]


def trained(composed: Callable[..., DictConfig], folder: Path, *overrides: str) -> Result:
    """Executes a run in a new output folder inside `folder`, which also contains the tracking store."""
    cfg = composed(*OVERRIDES, f"logging.tracking_uri={store(folder)}", *overrides)
    output = folder / f"output {len(list(folder.iterdir()))}"
    output.mkdir()
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        return run(cfg, output)


def store(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(scope="module")
def reference(
    composed: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> Result:
    """Result of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(empty_store, folder)
    return trained(composed, folder, "epochs=5", WITHOUT_MODEL)


@pytest.fixture
def train(composed: Callable[..., DictConfig], tmp_path: Path, empty_store: Path) -> Train:
    shutil.copy(empty_store, tmp_path)
    return lambda *overrides: trained(composed, tmp_path, *overrides)


def variables(folder: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / "checkpoints")))
    kept = (name for name in reader.get_variable_to_dtype_map() if not name.startswith(("_CHECK", "save_counter")))
    return {name: reader.get_tensor(name) for name in kept}


def assert_equal(one: Result, other: Result) -> None:
    mine, theirs = variables(one.output_dir), variables(other.output_dir)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)
    assert one.objective == other.objective
    assert points(one) == points(other)


def points(result: Result) -> dict[str, list[tuple[int, float]]]:
    client = MlflowClient(store(result.output_dir.parent))
    (found,) = client.search_runs(["1"])
    assert (found.info.run_id, found.info.status) == (result.run_id, "FINISHED")
    measured = re.compile("test_.*|peak_memory_mb|.*_per_.*|seconds_.*")
    names = [name for name in found.data.metrics if not measured.fullmatch(name)]
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(result.run_id, name)] for name in names
    }


def test_finished_run_continues_with_more_epochs(train: Train, reference: Result) -> None:
    first = train("epochs=2", "+logging.tags.purpose=test")
    more = train(f"resume={first.run_id}", "epochs=5")
    assert (more.run_id, more.output_dir) == (first.run_id, first.output_dir)
    assert (more.output_dir / "model" / "MLmodel").exists()
    assert_equal(more, reference)


def test_resume_skips_corrupt_checkpoint(
    train: Train, reference: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ("epochs=5", "checkpoint.every_epoch=true", WITHOUT_MODEL)
    epoch_end = Checkpoints.on_epoch_end

    def stop(checkpoints: Checkpoints, epoch: int, logs: dict[str, float] | None = None) -> None:
        epoch_end(checkpoints, epoch, logs)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(*overrides)
    newest = max(tmp_path.glob("output */checkpoints/ckpt-*.data*"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING, logger="experiments"):
        resumed = train(*overrides, "resume=last")
    assert f"{newest.name} has changed since it was written) is corrupt; resuming from checkpoint" in caplog.text
    assert_equal(resumed, reference)


def test_run_without_its_checkpoints_is_not_started_again_in_silence(train: Train) -> None:
    begun = train("epochs=1", WITHOUT_MODEL)
    shutil.rmtree(begun.output_dir / "checkpoints")
    with pytest.raises(
        TrackingError, match=rf"does not exist: expected the checkpoints of run {begun.run_id}\. Restore"
    ):
        train("epochs=2", WITHOUT_MODEL, f"resume={begun.run_id}")
    (begun.output_dir / "checkpoints").mkdir()
    assert len(variables(train("epochs=2", WITHOUT_MODEL, f"resume={begun.run_id}").output_dir)) > 0


def test_deleted_run_folder_is_explained_and_the_run_ends(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch_end = Checkpoints.on_epoch_end

    def delete(checkpoints: Checkpoints, epoch: int, logs: dict[str, float] | None = None) -> None:
        epoch_end(checkpoints, epoch, logs)
        shutil.rmtree(checkpoints.directory.parent)

    monkeypatch.setattr(Checkpoints, "on_epoch_end", delete)
    with pytest.raises(TrainingError, match=r"no longer exists: expected the run folder until the run ends"):
        train("epochs=3", WITHOUT_MODEL)
    (found,) = MlflowClient(store(tmp_path)).search_runs(["1"])
    assert found.info.status == "FAILED"
