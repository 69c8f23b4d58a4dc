"""Workers import TensorFlow while the parent run is opened, and take no job before it is open."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest
from mlflow import MlflowClient
from tests.trainings import Trainings

from experiments.records.plan_file import PLAN
from experiments.sweeps.parent_start import OPENED, Opened, close, is_open, wait_until_opened
from experiments.sweeps.queue import STUDY

TINY = ("-m", "data=digits", "model=mlp", "data.limit=100", "epochs=1", "progress=none", "tensorboard.graph=false")
TWO = ("seed=1,2", "sweep.workers=2", "hydra/launcher=joblib", "hydra.sweep.dir=swept")


@pytest.mark.parametrize("parent", ["1234", None])
def test_workers_wait_for_parent_run(tmp_path: Path, parent: str | None) -> None:
    file = (tmp_path / OPENED).open("w")
    fcntl.flock(file, fcntl.LOCK_EX)

    def write() -> None:
        with file:
            file.write('{"parent": "1234"}' if parent else '{"parent": null}')

    Timer(0.2, write).start()
    assert wait_until_opened(tmp_path) == Opened(parent)


def test_workers_do_not_wait_for_killed_sweep_process(tmp_path: Path) -> None:
    script = f"""
import fcntl, os
file = open({str(tmp_path / OPENED)!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
import time
time.sleep(0.2)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert wait_until_opened(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [pytest.param([], marks=pytest.mark.long), ["sweep.workers=2", "hydra/launcher=joblib"]],
    ids=["basic", "joblib"],
)
def test_unusable_store_ends_sweep_before_first_job(trainings: Trainings, tmp_path: Path, launcher: list[str]) -> None:
    (tmp_path / "runs.db").write_text("no database, " * 1000)
    overrides = (*TINY, "seed=1,2", "hydra.sweep.dir=swept", *launcher, "logging.tracking_uri=sqlite:///runs.db")
    ended = trainings.run(tmp_path, *overrides)
    assert ended.returncode == 1
    assert "error: logging.tracking_uri='sqlite:///" in ended.stderr
    assert "cannot be used as a tracking store" in ended.stderr
    assert "Traceback" not in ended.stderr
    left = {path.name for path in (tmp_path / "swept").iterdir()}
    # Without plan and queue, sweep.resume=last does not find this folder.
    assert not left & {PLAN, STUDY, "0", "1", "summary"}


@pytest.mark.slow
def test_resuming_with_unusable_store_keeps_sweep_resumable(trainings: Trainings, tmp_path: Path) -> None:
    assert trainings.run(tmp_path, *TINY, "seed=1", "hydra.sweep.dir=swept").returncode == 0
    store = (tmp_path / "mlflow.db").rename(tmp_path / "kept.db")
    (tmp_path / "mlflow.db").write_text("no database, " * 1000)
    ended = trainings.run(tmp_path, "-m", "sweep.resume=last", "hydra.sweep.dir=swept")
    assert ended.returncode == 1
    assert "cannot be used as a tracking store" in ended.stderr
    store.rename(tmp_path / "mlflow.db")
    assert trainings.run(tmp_path, "-m", "sweep.resume=last", "hydra.sweep.dir=swept").returncode == 0
    found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_unreachable_server_is_reported_before_anything_is_written(trainings: Trainings, tmp_path: Path) -> None:
    ended = trainings.run(tmp_path, *TINY, *TWO, "logging.tracking_uri=http://127.0.0.1:9", store=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "error: tracking server http://127.0.0.1:9 is not reachable: [Errno 111] Connection refused. "
        "Start it, set logging.tracking_uri, or run with logging=none."
    )
    assert list(tmp_path.iterdir()) == []


def test_workers_take_no_job_of_closed_sweep(tmp_path: Path) -> None:
    (tmp_path / OPENED).write_text('{"parent": null}')
    assert is_open(tmp_path)
    close(tmp_path)
    assert not is_open(tmp_path)
    assert wait_until_opened(tmp_path) is None


@pytest.mark.slow
def test_signal_during_worker_imports_ends_sweep_before_first_job(trainings: Trainings, tmp_path: Path) -> None:
    with trainings.started(tmp_path, *TINY, *TWO, store=False) as sweep:
        while not list(tmp_path.glob("swept/workers/*")) and sweep.goes_on():
            time.sleep(0.02)
        sweep.send(signal.SIGTERM)
        assert sweep.wait() == 143, sweep.stderr
        assert "Traceback" not in sweep.stderr
    assert not list(tmp_path.glob("swept/[01]"))
    assert not (tmp_path / "swept" / OPENED).exists()


@pytest.mark.slow
def test_sweep_process_creates_store_while_workers_import(tmp_path: Path) -> None:
    """New processes import MLflow and TensorFlow at the same time; the fork server has already imported both."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "experiments.train", *TINY, *TWO]
    sweep = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert sweep.returncode == 0, sweep.stderr
    found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"], order_by=["start_time"])
    assert [run.info.status for run in found] == ["FINISHED"] * 3
    assert {run.data.tags.get("mlflow.parentRunId") for run in found[1:]} == {found[0].info.run_id}


@pytest.mark.slow
def test_sweep_and_resume_write_only_to_sweep_folder(trainings: Trainings, tmp_path: Path) -> None:
    folder = tmp_path / "it's swept"
    sweep_dir = f"hydra.sweep.dir='{tmp_path}/it\\'s swept'"
    assert trainings.run(tmp_path, *TINY, "seed=1", "logging=none", sweep_dir).returncode == 0
    before = {path.name for path in folder.iterdir()}
    assert {"0", "workers", "summary"} <= before
    resumed = trainings.run(tmp_path, "-m", f"sweep.resume='{tmp_path}/it\\'s swept'")
    assert resumed.returncode == 0, resumed.stderr
    assert {path.name for path in folder.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} - {"mlflow.db"} == {folder.name}
