"""Signals before the first step: exit status, and no run left behind. test_kill.py sends signals during training."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.killing.outcome import STATUS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("stage", "sent"), [("loading TensorFlow", "INT"), ("building the model", "USR1")])
def test_signal_before_training_leaves_no_run(tmp_path: Path, stage: str, sent: str) -> None:
    command = [sys.executable, "-m", "experiments.train", "progress=plain", "model.filters=[8]", "data.limit=200"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if stage in line)
        process.send_signal(signal.Signals[f"SIG{sent}"])
        rest = process.stderr.read()
    assert process.returncode == STATUS[sent], seen + rest
    assert "Traceback" not in rest
    assert runs(tmp_path / "mlflow.db") == 0


def runs(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("select count(*) from runs").fetchone()
    return int(count)
