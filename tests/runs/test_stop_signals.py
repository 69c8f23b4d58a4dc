"""A signal before the first step leaves nothing behind, and shows in the exit status; test_kill.py sends later ones."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.killing.outcome import STATUS
from tests.trainings import Trainings

pytestmark = pytest.mark.slow
WORDS = ["progress=plain", "model.filters=[8]", "data.limit=200"]


def test_a_signal_while_tensorflow_is_loaded_leaves_no_run(tmp_path: Path) -> None:
    """In a new process, as a fork has loaded it."""
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *WORDS], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if "loading TensorFlow" in line)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == STATUS["INT"], seen + said
    assert "Traceback" not in said
    assert runs(tmp_path / "mlflow.db") == 0


def test_a_signal_before_training_leaves_no_run(trainings: Trainings, tmp_path: Path) -> None:
    with trainings.started(tmp_path, *WORDS) as process:
        process.wait_for("building the model")
        process.send(signal.SIGUSR1)
        assert process.wait() == STATUS["USR1"], process.stderr
        assert "Traceback" not in process.stderr
    assert runs(tmp_path / "mlflow.db") == 0


def runs(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("select count(*) from runs").fetchone()
    return int(count)
