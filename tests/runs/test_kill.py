"""Killed and stopped runs are resumed, and end bit for bit identical to uninterrupted runs.

`make test-kill` kills at every point.
"""

import signal
from typing import Any

import pytest
from tests.killing.faults import Fault
from tests.killing.outcome import STATUS
from tests.trainings import Trainings

pytestmark = pytest.mark.slow

STEP = "experiments.checkpoints.callback.Checkpoints.on_train_batch_end"
EPOCH = "experiments.checkpoints.callback.Checkpoints.on_epoch_end"
VALIDATION = "experiments.checkpoints.callback.Checkpoints.on_test_batch_end"
SAVE = "tensorflow.train.CheckpointManager.save"
RECORD = "tensorflow.train.CheckpointManager._record_state"
DRAW = "experiments.runs.figures.draw"
LONGEST_SECONDS = {1: 10, 2: 1}
"""Time limits by number of signals. After one signal the process saves its state; a second one ends it at once."""


def at(call: str, number: int, when: str = "before", **more: Any) -> Fault:
    return {"call": call, "number": number, "when": when, **more}


def signalled(sent: str, call: str, number: int, times: int = 1) -> Fault:
    return at(call, number, signal=sent, times=times)


CHAINS: dict[str, list[Fault]] = {
    "fit": [
        at("numpy.savez", 1),  # before anything is saved
        at("os.fsync", 6, "after"),
        signalled("TERM", STEP, 3),
        at("pathlib.Path.replace", 7),
        at("journal line", 12, "torn"),
        signalled("TERM", STEP, 3, times=2),
        signalled("USR1", EPOCH, 1),
    ],
    "accumulation": [  # while TensorFlow writes a checkpoint
        at(RECORD, 9, "without_index"),
        at(SAVE, 4, "during", milliseconds=2),
        at(SAVE, 2, "after"),
        at(RECORD, 6),
    ],
    "tape": [
        signalled("INT", STEP, 2),
        at(VALIDATION, 1),
        signalled("USR1", VALIDATION, 2),
        signalled("TERM", EPOCH, 1),
    ],
    "defaults": [
        at("experiments.runs.run.write_snapshot", 1),
        signalled("TERM", STEP, 2),  # without a signal, nothing is saved before the end of the epoch
        signalled("INT", DRAW, 1),
        at("experiments.runs.saved_model.save_model", 1, "after"),
        at("mlflow.MlflowClient.log_artifacts", 3),
    ],
    "frozen": [signalled("TERM", STEP, 1)],
}

LONG = ("accumulation", "frozen")
"""Jobs that `make test-kill` covers too; tests/loops/test_resumed.py resumes a model with frozen layers."""


@pytest.mark.parametrize("job", [pytest.param(job, marks=pytest.mark.long) if job in LONG else job for job in CHAINS])
def test_interrupted_run_ends_identical_to_uninterrupted_run(trainings: Trainings, job: str) -> None:
    """Compares weights, optimizer, best weights, metrics in MLflow and TensorBoard, and figures of the finished run."""
    faults = CHAINS[job]
    starts, differences = trainings.disturbed(job, *faults)
    assert differences == []
    assert [start.status for start in starts] == [*map(expected_status, faults), 0]
    assert starts[-1].runs == ["FINISHED"]
    for start, fault in zip(starts, faults, strict=False):
        if "signal" in fault:
            assert start.seconds is not None
            assert start.seconds < LONGEST_SECONDS[fault["times"]]
        if start.status in STATUS.values():
            assert start.runs == ["KILLED"]


def expected_status(fault: Fault) -> int:
    if "signal" not in fault:
        return -signal.SIGKILL
    return STATUS[fault["signal"]] if fault["times"] == 1 else -signal.Signals[f"SIG{fault['signal']}"]
