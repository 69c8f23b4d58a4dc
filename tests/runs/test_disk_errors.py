"""Full and read-only disks: the error is one line, complete files are kept, and the run can be resumed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.disks import mounted, tmpfs
from tests.trainings import Trainings, assert_same_bits, output

pytestmark = pytest.mark.slow
OVERRIDES = [
    *("data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "epochs=3", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.every_n_steps=1", "checkpoint.max_to_keep=99"),
    *("logging.log_model=false", "logging.experiment_name=disk", "hydra.run.dir=outputs"),
    *("logging.log_figures=false", "tensorboard.graph=false", "tensorboard.images=0", "logging.system_metrics=false"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte for the output folder of a run."""
    yield from mounted(tmp_path / "work" / "outputs", *tmpfs("1m"))


def test_full_disk_is_explained_and_run_resumes_later(trainings: Trainings, disk: Path, tmp_path: Path) -> None:
    work = disk.parent
    assert trainings.train(work, *OVERRIDES) == 1, output(work)
    text = output(work)
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    (run,) = client.search_runs(["1"])
    assert "cannot be written: No space left on device. The last valid checkpoint is " in line
    assert f"Free some space and continue with resume={run.info.run_id}" in line
    assert "Traceback" not in text, text
    assert "store is unavailable" not in text, text
    assert run.info.status == "FAILED"
    subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
    assert trainings.train(work, *OVERRIDES, f"resume={run.info.run_id}") == 0, output(work)
    (ended,) = client.search_runs(["1"])
    assert ended.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert steps == [1, 2, 3]
    other = tmp_path / "other"
    assert trainings.train(other, *OVERRIDES) == 0, output(other)
    assert_same_bits(disk / "checkpoints", other / "outputs" / "checkpoints")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A read-only file system in the place of a home folder."""
    yield from mounted(tmp_path / "home", *tmpfs("1m"), "-o", "ro")


def test_read_only_home_trains_without_cache_and_with_same_bits(
    trainings: Trainings, home: Path, tmp_path: Path
) -> None:
    photos = ("data=cats_dogs_synthetic", "data.num_examples=60", f"data.path={tmp_path}/photos")
    overrides = (*photos, *OVERRIDES[2:], "model=mlp", "data.image_size=[32,32]", "epochs=2")
    for name, cache in (("cached", tmp_path / "cache"), ("uncached", home / "cache")):
        status = trainings.train(tmp_path / name, *overrides, f"data.cache_dir={cache}")
        assert status == 0, output(tmp_path / name)
    text = output(tmp_path / "uncached")
    for split in ("train", "validation", "test"):
        assert text.count(f"cannot keep the decoded images of '{split}' (0 MB): Read-only file system. Training") == 1
    assert "Traceback" not in text
    assert_same_bits(*(tmp_path / name / "outputs" / "checkpoints" for name in ("cached", "uncached")))


def test_read_only_disk_is_explained_in_one_line(trainings: Trainings, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    store = f"sqlite:///{tmp_path}/m.db"
    assert trainings.train(disk.parent, *OVERRIDES, f"logging.tracking_uri='{store}'") == 1
    text = output(disk.parent)
    assert text.startswith("error: ")
    assert "Read-only file system" in text
    assert "Set hydra.run.dir=FOLDER" in text
    assert len(text.splitlines()) == 1, text
    assert not (tmp_path / "m.db").exists()
