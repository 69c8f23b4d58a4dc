"""A signal stops a run when its step is done, keeps all of it, and says so by the exit status."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.killing.faults import Fault
from tests.trainings import Trainings

pytestmark = pytest.mark.slow

LONGEST_SECONDS = 10
STEP = "experiments.checkpoints.Checkpoints.on_train_batch_end"
EPOCH = "experiments.checkpoints.Checkpoints.on_epoch_end"
VALIDATION = "experiments.checkpoints.Checkpoints.on_test_batch_end"
STATUS = {"TERM": 143, "INT": 130, "USR1": 138}
"""128 and the signal's number."""


def at(call: str, number: int, sent: str, **more: Any) -> Fault:
    return {"call": call, "number": number, "when": "before", "signal": sent, **more}


@pytest.mark.parametrize(
    ("job", "faults"),
    [
        ("fit", [at(STEP, 3, "TERM"), at(VALIDATION, 2, "INT"), at(EPOCH, 1, "USR1")]),
        ("tape", [at(EPOCH, 1, "TERM"), at(VALIDATION, 2, "USR1"), at(STEP, 2, "INT")]),
        # Without a signal neither would be saved before the end of the epoch.
        ("defaults", [at(STEP, 2, "TERM"), at("experiments.figures.draw", 1, "INT")]),
        ("frozen", [at(STEP, 1, "TERM")]),
    ],
)
def test_a_signal_loses_nothing(trainings: Trainings, job: str, faults: list[Fault]) -> None:
    starts, differences = trainings.disturbed(job, *faults)
    assert differences == []
    assert [start.status for start in starts] == [*(STATUS[fault["signal"]] for fault in faults), 0]
    assert [start.runs for start in starts] == [["KILLED"]] * len(faults) + [["FINISHED"]]
    assert all(start.seconds is not None and start.seconds < LONGEST_SECONDS for start in starts[:-1])


def test_a_second_signal_ends_at_once(trainings: Trainings) -> None:
    starts, differences = trainings.disturbed("fit", at(STEP, 3, "TERM", times=2))
    assert differences == []
    assert [start.status for start in starts] == [-signal.SIGTERM, 0]
    assert starts[0].seconds is not None
    assert starts[0].seconds < 1


@pytest.mark.parametrize(
    ("stage", "sent"),
    [("loading TensorFlow", "TERM"), ("building the model", "USR1"), ("building the model", "INT")],
)
def test_a_signal_before_training_leaves_no_run(tmp_path: Path, stage: str, sent: str) -> None:
    command = [sys.executable, "-m", "experiments.train", "progress=plain", "model.filters=[8]", "data.limit=200"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if stage in line)
        process.send_signal(signal.Signals[f"SIG{sent}"])
        said = process.stderr.read()
    assert process.returncode == STATUS[sent], seen + said
    assert "Traceback" not in said
    assert runs(tmp_path / "mlflow.db") == 0


def runs(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("select count(*) from runs").fetchone()
    return int(count)
