"""Fixtures for a store with runs, and for output folders of dead runs."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.tracking.journal import Journal
from experiments.tracking.mlflow_store import get_or_create_experiment, open_store

MakeRun = Callable[..., Run]
LeaveJournal = Callable[..., Path]


@pytest.fixture
def client(tmp_path: Path, empty_store: Path) -> MlflowClient:
    """Client of an empty store."""
    path = tmp_path / "m.db"
    path.write_bytes(empty_store.read_bytes())
    return open_store(f"sqlite:///{path}")


@pytest.fixture(scope="session")
def dead_pid() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def running(client: MlflowClient, dead_pid: int) -> MakeRun:
    """Creates a run that is RUNNING in the store: (output_dir, **tags)."""

    def make(output_dir: Path, **changes: Any) -> Run:
        known = {"host": socket.gethostname(), "pid": dead_pid, "heartbeat": int(time.time()), "output_dir": output_dir}
        tags = {name: str(value) for name, value in (known | changes).items()}
        return client.create_run(get_or_create_experiment(client, "e"), tags=tags)

    return make


@pytest.fixture
def leave(client: MlflowClient) -> LeaveJournal:
    """Writes the journal of a process that delivered nothing: (run, *events of (name, fields))."""

    def write(run: Run, *events: tuple[str, dict[str, Any]]) -> Path:
        folder = Path(run.data.tags["output_dir"])
        journal = Journal(folder)
        journal.open()
        place = {name: run.data.tags[name] for name in ("host", "pid", "heartbeat", "output_dir")}
        journal.append("start", run_id=run.info.run_id, tracking_uri=client.tracking_uri)
        journal.append("tags", values=place)
        for name, fields in events:
            journal.append(name, **fields)
        journal.close()
        (folder / "run.lock").touch()
        return folder

    return write
