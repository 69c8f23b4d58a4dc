"""`experiments doctor` in a working folder, as users and programs call it."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.trainings import Trainings

from experiments.tracking.journal import undelivered
from experiments.tracking.liveness import run_lock
from experiments.tracking.uris import sync_command

MakeRun = Callable[..., Run]
LeaveJournal = Callable[..., Path]
Doctor = Callable[..., subprocess.CompletedProcess[str]]
END = ("end", {"status": "KILLED"})


@pytest.fixture
def folder(client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path) -> Path:
    """Output folder of a dead run with undelivered events and an unfinished checkpoint."""
    folder = leave(running(tmp_path / "outputs" / "a day's" / "run"), END)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.json.tmp").touch()
    return folder


def address(cwd: Path) -> str:
    return f"logging.tracking_uri='sqlite:///{cwd}/m.db'"


@pytest.fixture
def doctor(trainings: Trainings, tmp_path: Path) -> Doctor:
    return lambda *overrides: trainings.run(tmp_path, address(tmp_path), *overrides, door="doctor", store=False)


def test_all_findings_are_listed_and_nothing_is_changed(
    client: MlflowClient, folder: Path, tmp_path: Path, doctor: Doctor
) -> None:
    before = sorted(tmp_path.rglob("*"))
    rows = json.loads(doctor("format=json").stdout)
    assert [(row["what"], row["repair"]) for row in rows] == [
        ("journal", "fix=true delivers them"),
        ("run", "fix=true makes it KILLED"),
        ("left over", "fix=true removes it"),
    ]
    assert list(csv.DictReader(io.StringIO(doctor("format=csv").stdout))) == rows
    shown = doctor()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "3 found (1 output folder below outputs, multirun). Nothing was changed: add fix=true to repair 3." in (
        shown.stdout
    )
    assert sorted(tmp_path.rglob("*")) == before
    assert undelivered(folder) == 3
    assert client.search_runs(["1"])[0].info.status == "RUNNING"


def test_fix_repairs_all_findings(client: MlflowClient, folder: Path, doctor: Doctor) -> None:
    done = doctor("fix=true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is KILLED" in done.stdout
    assert "2 found (1 output folder below outputs, multirun); 2 repaired." in done.stdout
    assert "Nothing to repair" in doctor().stdout
    assert client.search_runs(["1"])[0].info.status == "KILLED"


def test_sync_command_of_run_delivers_from_any_folder(client: MlflowClient, folder: Path, tmp_path: Path) -> None:
    """The path contains blanks and quotes, and the command names the store.

    A new process is started, because stderr has to be empty including the output of all imports.
    """
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        sync_command(folder, client.tracking_uri),
        shell=True,
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "delivered 3" in done.stdout
    assert undelivered(folder) == 0
    assert client.search_runs(["1"])[0].info.status == "KILLED"
    assert (folder / "checkpoints" / "best.json.tmp").exists()
    assert not (tmp_path / "elsewhere" / "mlflow.db").exists()


def test_failed_repair_is_reported_in_one_line_with_status_1(folder: Path, tmp_path: Path, doctor: Doctor) -> None:
    (tmp_path / "m.db").unlink()
    done = doctor("sync", "format=csv")
    assert done.returncode == 1
    assert done.stderr == "error: 1 of 1 could not be repaired: see the rows with 'failed' for the reason.\n"
    assert undelivered(folder) == 3


def test_live_run_is_not_changed(client: MlflowClient, folder: Path, doctor: Doctor) -> None:
    with run_lock(folder):
        done = doctor("fix=true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "its own process delivers them" in done.stdout
    assert undelivered(folder) == 3
    assert client.search_runs(["1"])[0].info.status == "RUNNING"
    assert (folder / "checkpoints" / "best.json.tmp").exists()
