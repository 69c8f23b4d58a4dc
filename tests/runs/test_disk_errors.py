"""Disks that are full or cannot be written: one line, nothing whole is lost, and the run goes on afterwards."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.disks import mounted, tmpfs
from tests.trainings import Trainings, assert_same_bits, output

pytestmark = pytest.mark.slow
WORDS = [
    *("data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "epochs=3", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.every_n_steps=1", "checkpoint.max_to_keep=99"),
    *("logging.log_model=false", "logging.experiment_name=disk", "hydra.run.dir=outputs"),
    *("logging.log_figures=false", "tensorboard.graph=false", "tensorboard.images=0", "logging.system_metrics=false"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A megabyte, as the output folder of a run."""
    yield from mounted(tmp_path / "work" / "outputs", *tmpfs("1m"))


def test_a_disk_that_is_full(trainings: Trainings, disk: Path, tmp_path: Path) -> None:
    work = disk.parent
    assert trainings.train(work, *WORDS) == 1, output(work)
    said = output(work)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    (run,) = client.search_runs(["1"])
    assert "cannot be written: No space left on device. The last whole checkpoint is " in line
    assert f"Free some space and go on with resume={run.info.run_id}" in line
    assert "Traceback" not in said, said
    assert "store is unavailable" not in said, said
    assert run.info.status == "FAILED"
    subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
    assert trainings.train(work, *WORDS, f"resume={run.info.run_id}") == 0, output(work)
    (ended,) = client.search_runs(["1"])
    assert ended.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert steps == [1, 2, 3]
    other = tmp_path / "other"
    assert trainings.train(other, *WORDS) == 0, output(other)
    assert_same_bits(disk / "checkpoints", other / "outputs" / "checkpoints")


def test_a_disk_that_cannot_be_written(trainings: Trainings, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    store = f"sqlite:///{tmp_path}/m.db"
    assert trainings.train(disk.parent, *WORDS, f"logging.tracking_uri='{store}'") == 1
    said = output(disk.parent)
    assert said.startswith("error: ")
    assert "Read-only file system" in said
    assert "Set hydra.run.dir=FOLDER" in said
    assert len(said.splitlines()) == 1, said
    assert not (tmp_path / "m.db").exists()
