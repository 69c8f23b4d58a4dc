"""A run whose machine is lost is resumed on another machine from the files in the store."""

import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.killing.evidence import STORE
from tests.mlflow_server import MlflowServer
from tests.trainings import Trainings, assert_same_bits, output

pytestmark = pytest.mark.slow
OVERRIDES = [
    *("data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "epochs=12", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.every_n_steps=2", "checkpoint.upload_every_n_minutes=1e-9"),
    *("logging.log_model=false", "logging.delivery_interval=0.05", "logging.every_n_steps=1"),
    *("logging.system_metrics=true", "logging.system_metrics_interval=1", "logging.experiment_name=lost"),
    *("logging.log_figures=false", "tensorboard.graph=false", "tensorboard.images=0", "hydra.run.dir=outputs"),
]
MEASURED = re.compile(r"system/.*|peak_memory_mb|.*_per_.*|seconds_.*")
"""Metrics that differ from run to run."""
SECOND_UPLOAD = {"call": "experiments.checkpoints.uploads.stage", "number": 2, "when": "after"}
"""The second upload is staged after the store has received the first."""


@pytest.fixture(scope="module")
def reference(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference")
    assert trainings.train(folder, *OVERRIDES, f"logging.tracking_uri='sqlite:///{folder}/{STORE}'") == 0, output(
        folder
    )
    return folder / "outputs"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def only_run(client: MlflowClient) -> Run:
    experiment = client.get_experiment_by_name("lost")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def histories(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> str:
    """Tracking URI of a store. Only this test uses its experiment `lost`, although other tests use the server."""
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    server: MlflowServer = request.getfixturevalue("server")
    return server.uri


@pytest.mark.parametrize(
    ("store", "named"), [pytest.param("sqlite", "last", marks=pytest.mark.long), ("server", "ID")], indirect=["store"]
)
def test_run_of_lost_machine_resumes_on_other_machine(
    trainings: Trainings, reference: Path, store: str, named: str, tmp_path: Path
) -> None:
    address = f"logging.tracking_uri='{store}'"
    lost, other = tmp_path / "machine 1", tmp_path / "machine 2"
    assert trainings.train(lost, *OVERRIDES, address, fault=SECOND_UPLOAD) == -9, output(lost)
    shutil.rmtree(lost)
    client = MlflowClient(store)
    run = only_run(client)
    assert run.info.status == "RUNNING"
    stored = [each.path for each in client.list_artifacts(run.info.run_id, "checkpoints")]
    assert sum(path.endswith(".json") for path in stored) == 1, "older checkpoints were not removed"
    resume = run.info.run_id if named == "ID" else "last"
    assert trainings.train(other, *OVERRIDES, address, f"resume={resume}") == 0, output(other)
    ended = only_run(client)
    assert (ended.info.run_id, ended.info.status) == (run.info.run_id, "FINISHED")
    assert_same_bits(other / "outputs" / "checkpoints", reference / "checkpoints")
    assert_same_bits(other / "outputs" / "checkpoints" / "best", reference / "checkpoints" / "best")
    expected = MlflowClient(f"sqlite:///{reference.parent}/{STORE}")
    theirs, mine = histories(expected, only_run(expected)), histories(client, ended)
    for name, points in mine.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
        assert MEASURED.fullmatch(name) or points == theirs[name], name
    assert {name for name in mine if not name.startswith("system/")} == {
        name for name in theirs if not name.startswith("system/")
    }
    downloaded = client.download_artifacts(run.info.run_id, "checkpoints", str(tmp_path))
    assert names(Path(downloaded)) == names(other / "outputs" / "checkpoints")
