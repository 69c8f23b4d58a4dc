"""One process an output folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.errors import ExperimentError
from experiments.tracking.liveness import LOCK, is_locked, locked

HOLD = """
import sys, time
from pathlib import Path
from experiments.tracking.liveness import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)
        with pytest.raises(ExperimentError) as error, locked(folder):
            pass
        assert is_locked(folder)
    assert not is_locked(folder)
    assert str(error.value) == (
        f"another process works in '{folder}': expected a run that nobody works on. Wait for its end, or stop it."
    )


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_locked(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    assert not is_locked(tmp_path)
