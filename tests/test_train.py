"""The training command, from end to end: results of finished, failed and stopped runs."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.trainings import Trainings

from experiments.config import check
from experiments.runs.results import Result
from experiments.runs.run import run

pytestmark = pytest.mark.slow

SMALL = ("model.filters=[8]", "data.limit=200", "optimizer.learning_rate=0.01")
CALLBACKS = """
import time
from pathlib import Path
import keras

class Broken(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("my own callback is broken, password=hunter2")

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        Path("training").touch()
        time.sleep(0.5)
"""


class Done(NamedTuple):
    process: subprocess.CompletedProcess[str]
    client: MlflowClient
    run: Run
    output: Path


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "experiments.train", *overrides]


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def newest(folder: Path) -> tuple[MlflowClient, Run]:
    client = client_of(folder)
    experiment = client.get_experiment_by_name("experiments")
    return client, client.search_runs([experiment.experiment_id])[0]


def ended(folder: Path, process: subprocess.CompletedProcess[str], status: int) -> Done:
    assert process.returncode == status, process.stderr
    client, run = newest(folder)
    return Done(process, client, run, max(folder.glob("outputs/*/*")))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working folder with user-defined callbacks, whose name has spaces and an umlaut."""
    folder = tmp_path_factory.mktemp("Läufe und mehr")
    (folder / "mine.py").write_text(CALLBACKS, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def done(folder: Path) -> Done:
    """A finished run of a new process, because the tests check its complete terminal output."""
    overrides = (
        "epochs=2",
        "logging.every_n_steps=5",
        "logging.system_metrics_interval=1",
        "+logging.tags.purpose=test",
    )
    process = subprocess.run(command(*SMALL, *overrides), cwd=folder, capture_output=True, text=True, check=False)
    return ended(folder, process, 0)


def test_output_names_run_viewers_and_checkpoints(done: Done) -> None:
    lines = done.process.stdout.splitlines()
    assert any(line.split() == ["run", "id", done.run.info.run_id] for line in lines)
    for expected in ("mlflow ui", "tensorboard", "checkpoints"):
        assert any(expected in line for line in lines), expected


def test_stderr_has_no_library_messages(done: Done) -> None:
    for noise in ("I0000", "cuda", "WARNING", "Warning", "Traceback"):
        assert noise not in done.process.stderr


def test_run_has_final_status_and_generated_name(done: Done) -> None:
    assert done.run.info.status == "FINISHED"
    assert done.run.info.run_name == f"cnn-digits-{done.run.info.run_id[:4]}"


def test_config_values_are_params(done: Done) -> None:
    params = done.run.data.params
    expected = {"seed": "0", "epochs": "2", "model.filters": "[8]", "optimizer.learning_rate": "0.01"}
    assert expected.items() <= params.items()
    chosen = {"data": "digits", "model": "cnn", "metrics": "accuracy", "augment": "none", "loop": "fit"}
    assert chosen.items() <= params.items()
    assert not {"data._target_", "runtime.threads", "logging", "logging.run_name", "progress"} & set(params)


def test_epoch_and_batch_metrics_are_logged(done: Done) -> None:
    def steps(name: str) -> list[int]:
        return [point.step for point in done.client.get_metric_history(done.run.info.run_id, name)]

    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        assert steps(name) == [1, 2], name
    assert steps("batch/loss") == [5, 10]
    assert steps("test_accuracy") == [2]
    assert done.run.data.metrics["learning_rate"] == pytest.approx(0.01)


def test_system_metrics_are_logged(done: Done) -> None:
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(done.run.data.metrics)


def test_tags_contain_command_and_versions(done: Done) -> None:
    tags = done.run.data.tags
    assert tags["purpose"] == "test"
    assert any("experiments.train" in value or "epochs=2" in value for value in tags.values())
    assert any(name.startswith("version") and "tensorflow" in name for name in tags)


def test_splits_are_logged_inputs(done: Done) -> None:
    inputs = [entry.dataset for entry in done.run.inputs.dataset_inputs]
    profiles = [json.loads(dataset.profile) for dataset in inputs]
    assert len(inputs) == 3
    assert all(dataset.digest for dataset in inputs)
    assert all(sum(profile["class_counts"].values()) == profile["num_examples"] for profile in profiles)


def artifacts(done: Done, folder: str) -> set[str]:
    return {Path(item.path).name for item in done.client.list_artifacts(done.run.info.run_id, folder)}


def test_artifacts_are_uploaded(done: Done) -> None:
    assert artifacts(done, "") == {"checkpoints", "tensorboard", "config", "figures", "images"}
    assert {"curves.png", "confusion_matrix.png", "most_wrong.png"} <= artifacts(done, "figures")
    assert {"config.yaml", "data.json"} <= artifacts(done, "config")
    assert {"checkpoint", "best"} <= artifacts(done, "checkpoints")


def test_tensorboard_logs_have_scalars_and_images(done: Done) -> None:
    tags = EventAccumulator(str(done.output / "tensorboard" / "train")).Reload().Tags()["tensors"]
    assert {"epoch_loss", "batch_loss", "training images"} <= set(tags)


def test_logged_model_predicts_from_uint8_images(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", done.client.tracking_uri)
    (logged,) = done.client.search_logged_models([done.run.info.experiment_id])
    assert (logged.source_run_id, logged.status) == (done.run.info.run_id, "READY")
    assert done.process.stdout.count(f"models:/{logged.model_id}\n") == 1
    model = mlflow.pyfunc.load_model(f"runs:/{done.run.info.run_id}/model")
    assert model.metadata.signature.inputs.inputs[0].type == np.dtype("uint8")
    assert model.metadata.saved_input_example_info is None  # images as JSON are larger than the weights
    probabilities = np.asarray(model.predict(np.zeros((2, 8, 8, 1), np.uint8)))
    np.testing.assert_allclose(probabilities.sum(axis=1), [1, 1], rtol=1e-5)


def test_failed_run_stores_masked_traceback(folder: Path, done: Done, trainings: Trainings) -> None:
    failed = ended(folder, trainings.run(folder, *SMALL, "epochs=2", "+callbacks.mine._target_=mine.Broken"), 1)
    assert 'raise RuntimeError("my own callback is broken' in failed.process.stderr
    assert failed.run.info.status == "FAILED"
    assert failed.run.data.tags["error"].startswith("RuntimeError: my own callback is broken")
    traceback = Path(failed.client.download_artifacts(failed.run.info.run_id, "traceback.txt")).read_text("utf-8")
    assert "RuntimeError: my own callback is broken" in traceback
    assert "hunter2" not in traceback
    assert {"checkpoints", "config", "tensorboard"} <= artifacts(failed, "")


def test_stopped_run_has_status_killed(tmp_path: Path, trainings: Trainings) -> None:
    (tmp_path / "mine.py").write_text(CALLBACKS, encoding="utf-8")
    with trainings.started(tmp_path, *SMALL, "epochs=99", "+callbacks.mine._target_=mine.Slow") as process:
        while not (tmp_path / "training").exists() and process.goes_on():
            time.sleep(0.1)
        process.send(signal.SIGTERM)
        status, stderr = process.wait(), process.stderr
    assert status == 128 + signal.SIGTERM, stderr
    assert "Traceback" not in stderr
    client, killed = newest(tmp_path)
    assert killed.info.status == "KILLED"
    assert {"config", "tensorboard"} <= {item.path for item in client.list_artifacts(killed.info.run_id)}


@pytest.fixture
def run_here(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Returns a function that runs a training in this process, without MLflow."""

    def run_here(*overrides: str) -> Result:
        monkeypatch.chdir(tmp_path)
        output = tmp_path / "output"
        output.mkdir()
        cfg = composed(*overrides, "logging=none", "progress=none", "logging.log_model=false", "model.filters=[8]")
        check(cfg)
        return run(cfg, output)

    return run_here


@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_debug_one_batch_saves_checkpoint(run_here: Callable[..., Result], loop: str) -> None:
    result = run_here("debug=one_batch", f"loop={loop}")
    assert list((result.output_dir / "checkpoints").glob("ckpt-1.index"))


def test_debug_overfit_learns_one_batch(run_here: Callable[..., Result]) -> None:
    """Trains fifty steps on one batch, with a learning rate that suits the small network."""
    result = run_here("debug=overfit", "optimizer.learning_rate=0.05", "model.dropout=0")
    assert result.objective < 0.5  # starts at ln 10 = 2.3


def test_debug_profile_writes_trace(run_here: Callable[..., Result]) -> None:
    result = run_here("debug=profile", "data.limit=400")
    assert list((result.output_dir / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.real_data
@pytest.mark.parametrize("loop", ["fit", pytest.param("tape", marks=pytest.mark.long)])
def test_transfer_learning_reaches_accuracy_on_real_photos(
    tmp_path: Path, real_data: Path, loop: str, trainings: Trainings
) -> None:
    """Trains a new head on ImageNet features for three epochs; expects a validation accuracy of 0.9."""
    weights = next((real_data / "weights").glob("*.h5"))
    overrides = ("model=mobilenetv2", "data=cats_dogs", f"data.path={real_data}/cats_dogs", f"model.weights={weights}")
    size = ("model.alpha=0.35", "model.freeze=true", "data.image_size=[160,160]", "epochs=3")
    process = trainings.run(tmp_path, *overrides, *size, f"loop={loop}", "logging.log_model=false")
    finished = ended(tmp_path, process, 0)
    assert finished.run.data.metrics["val_accuracy"] >= 0.9
