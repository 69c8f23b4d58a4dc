"""The lock that admits one process per run folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.errors import ExperimentError
from experiments.tracking.liveness import (
    BEAT_SECONDS,
    HEARTBEAT_SECONDS,
    LOCK,
    is_at_work,
    is_in_use,
    is_worked_on,
    run_lock,
)

HOLD = """
import sys, time
from pathlib import Path
from experiments.tracking.liveness import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_locked_folder_refuses_second_lock(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert not is_in_use(folder)
    with run_lock(folder):
        assert is_in_use(folder)
        with pytest.raises(ExperimentError) as error, run_lock(folder):
            pass
        assert is_in_use(folder)
    assert not is_in_use(folder)
    assert str(error.value) == (
        f"another process works in '{folder}': expected a run that no other process works on. "
        "Wait until that process ends, or stop it."
    )


def test_lock_is_released_after_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    with run_lock(tmp_path):
        pass


def test_lock_is_released_when_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_in_use(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    assert not is_in_use(tmp_path)


@pytest.mark.parametrize("name", ["/" + "a" * 5000, "a\0b"])
def test_folder_with_impossible_name_is_not_in_use(name: str) -> None:
    tags = {"output_dir": name, "host": socket.gethostname(), "pid": str(os.getpid()), "heartbeat": "1"}
    assert not is_in_use(Path(name))
    assert not is_worked_on("RUNNING", tags)
    assert is_worked_on("RUNNING", {**tags, "heartbeat": "9999999999"})


def test_lock_path_that_is_a_folder_counts_as_unlocked(tmp_path: Path) -> None:
    """Ensures that `doctor` can list such a run too."""
    (tmp_path / LOCK).mkdir()
    assert not is_in_use(tmp_path)


def test_outage_of_store_does_not_count_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """During the outage, the process on the other machine could not send a heartbeat."""
    now, requests = 1000.0, 0
    tags = {"host": "elsewhere", "heartbeat": f"{time.time():.0f}"}

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    def get_run(run_id: str) -> Any:
        nonlocal requests
        requests += 1
        pause(HEARTBEAT_SECONDS if requests == 2 else 0)
        sent = {"heartbeat": f"{time.time() + 60:.0f}"} if requests > 2 + BEAT_SECONDS / 4 else {}
        return SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, status="RUNNING"), data=SimpleNamespace(tags=tags | sent)
        )

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", pause)
    client: Any = SimpleNamespace(get_run=get_run)
    assert is_at_work(client, get_run("run of the outage"))
    assert requests > 2 + BEAT_SECONDS / 4
