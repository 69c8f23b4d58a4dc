"""Workers import TensorFlow while the parent run is opened, and take no job before it is open."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna import create_study, load_study
from tests.trainings import Trainings

from experiments.errors import ExperimentError
from experiments.records.sweep_plan import STUDY
from experiments.sweeps.members import CLOSED, STATE, Members
from experiments.sweeps.parent_start import start_parent_run
from experiments.sweeps.study_storage import storage
from experiments.tracking.liveness import BEAT_SECONDS, HEARTBEAT_SECONDS
from experiments.tracking.patience import SWEEP_SECONDS, most_patience

TINY = ("-m", "data=digits", "model=mlp", "data.limit=100", "epochs=1", "progress=none", "tensorboard.graph=false")
TWO = ("seed=1,2", "sweep.workers=2", "hydra/launcher=joblib", "hydra.sweep.dir=swept")


@pytest.fixture
def members(tmp_path: Path) -> Members:
    (tmp_path / STUDY).touch()
    return Members(create_study(study_name="s", storage=storage(None, tmp_path)), tmp_path)


def opened_again(folder: Path) -> Members:
    return Members(load_study(study_name="s", storage=storage(None, folder)), folder)


def lead(folder: str, seconds: float) -> None:
    with opened_again(Path(folder)).leading():
        print("leads", flush=True)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_wait_for_parent_run(members: Members, tmp_path: Path) -> None:
    with members.leading():
        Timer(0.2, members.open).start()
        assert opened_again(tmp_path).wait_until_opened()
        members.close()
        assert not opened_again(tmp_path).is_open()
        assert not opened_again(tmp_path).wait_until_opened()


def test_sweep_without_parent_run_is_closed_after_outage_of_database(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers whose sweep process lives wait until the sweep is closed, and the sweep process waits for its workers."""
    waited = []
    monkeypatch.setattr("optuna.Study.set_user_attr", lambda *_: waited.append(most_patience.get()))
    plan: Any = None  # the error
    queue: Any = SimpleNamespace(members=members)
    with start_parent_run(plan, queue, tmp_path, at_once=True) as parent, pytest.raises(AttributeError):
        parent()
    assert waited == [SWEEP_SECONDS]


def test_workers_do_not_wait_for_killed_sweep_process(members: Members, trainings: Trainings, tmp_path: Path) -> None:
    with trainings.calling(lead, str(tmp_path), 0.3) as process:
        process.wait_for("leads")
        assert not members.wait_until_opened()
        assert process.wait() == -9


def test_second_sweep_process_is_refused(members: Members, trainings: Trainings, tmp_path: Path) -> None:
    with trainings.calling(lead, str(tmp_path), 60) as process:
        process.wait_for("leads")
        with pytest.raises(ExperimentError) as error, members.leading():
            pytest.fail("two processes lead the sweep")
        assert re.fullmatch(
            rf"other processes work on the sweep in {tmp_path}: expected none, received sweep process (\d+) on \S+. "
            r"Workers end when no job waits: try again then, or stop them \(kill \1\).",
            str(error.value),
        )
    with members.leading():  # at once after the other one was killed
        assert list(members.living()) == [f"sweep process {os.getpid()} on {socket.gethostname()}"]
    assert not members.living()


def test_process_on_another_machine_is_judged_by_its_heartbeats(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other clock may be wrong: only the time between two heartbeats counts, on the clock of this machine."""
    study = load_study(study_name="s", storage=storage(None, tmp_path))
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for ahead in (0, 7200, -7200):
        signs = {"host": "other", "pid": "1", "heartbeat": str(time.time() + ahead)}
        study.set_user_attr("worker 1 on other", signs)
        for seconds in (0, *[BEAT_SECONDS] * 4, HEARTBEAT_SECONDS - 4 * BEAT_SECONDS - 1):
            now += seconds
            assert members.living()
        now += 2
        assert not members.living()
    study.set_user_attr("worker 1 on other", signs | {"heartbeat": "12345"})
    assert not members.living()


def test_observer_that_could_not_look_considers_no_process_dead(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an outage of the database, no process could store a heartbeat; a suspended observer has read none."""
    study = load_study(study_name="s", storage=storage(None, tmp_path))
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    study.set_user_attr("worker 1 on other", {"host": "other", "pid": "1", "heartbeat": str(time.time())})
    assert members.living()
    now += 2 * HEARTBEAT_SECONDS
    assert members.living()
    ends = now + HEARTBEAT_SECONDS
    while now < ends:
        assert members.living()
        now += BEAT_SECONDS
    assert not members.living()


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
    # Without a queue, sweep.resume=last does not find this folder.
    assert not left & {STUDY, "0", "1", "summary"}


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


@pytest.mark.slow
def test_signal_during_worker_imports_ends_sweep_before_first_job(trainings: Trainings, tmp_path: Path) -> None:
    with trainings.started(tmp_path, *TINY, *TWO, store=False) as sweep:
        while not list(tmp_path.glob("swept/workers/*")) and sweep.goes_on():
            time.sleep(0.02)
        sweep.send(signal.SIGTERM)
        assert sweep.wait() == 143, sweep.stderr
        assert "Traceback" not in sweep.stderr
    assert not list(tmp_path.glob("swept/[01]"))
    (study,) = storage(None, tmp_path / "swept").get_all_studies()
    assert study.user_attrs[STATE] == CLOSED


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
