"""What can happen to a sweep: killed as a whole or in part, a job that hangs or takes all memory, a full disk."""

import csv
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.disks import mounted, tmpfs
from tests.trainings import Trainings, assert_same_bits, output

from experiments.sweeps.processes import any_at_work

pytestmark = pytest.mark.slow
TINY = [
    *("-m", "data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "epochs=2", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.every_n_steps=3", "logging.log_model=false"),
    *("logging.log_figures=false", "tensorboard.graph=false", "logging.system_metrics=false", "hydra.sweep.dir=swept"),
]
ON = ["-m", "sweep.resume=last", "hydra.sweep.dir=swept"]
STEP = "experiments.checkpoints.callback.Checkpoints.on_train_batch_end"
OWN = """
import ctypes
import faulthandler
import os
import signal
import time
from pathlib import Path

import keras


def time_is_over():
    armed, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < armed <= 300
    signal.setitimer(signal.ITIMER_REAL, 0.5)


class Trouble(keras.callbacks.Callback):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def on_epoch_end(self, epoch, logs=None):
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "memory":
            bytearray(1 << 50)
        if self.kind == "hangs":
            time_is_over()
            time.sleep(600)
        if self.kind == "native":
            time_is_over()
            faulthandler.dump_traceback_later(1.5, exit=True, file=2)  # instead of the timeout and 60 s
            mutex = ctypes.create_string_buffer(64)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
        while self.kind == "waits" and not Path("go.mark").exists():
            time.sleep(0.1)
"""
TROUBLE = "+callbacks.trouble._target_=own.Trouble"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "swept" / "summary" / "jobs.csv").open() as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> dict[str, list[str]]:
    """Number of a job -> of its runs; of the sweep itself under an empty one."""
    found: dict[str, list[str]] = {}
    for run in MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"]):
        found.setdefault(run.data.tags.get("sweep.job", ""), []).append(run.info.status)
    return found


FINISHED = {number: ["FINISHED"] for number in ("", "0", "1", "2")}


@pytest.fixture(scope="module")
def whole(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert trainings.train(folder, *TINY, "seed=1,2,3") == 0, output(folder)
    return folder / "swept"


def test_a_sweep_that_is_killed_goes_on_within_its_job(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    fault = {"call": STEP, "number": 19, "when": "before"}
    assert trainings.train(tmp_path, *TINY, "seed=1,2,3", fault=fault) == -9
    assert statuses(tmp_path) == {
        "": ["RUNNING"],
        "0": ["FINISHED"],
        "1": ["RUNNING"],
    }
    assert trainings.train(tmp_path, *ON) == 0, output(tmp_path)
    assert statuses(tmp_path) == FINISHED
    assert [row["state"] for row in rows(tmp_path)] == ["COMPLETE"] * 3
    for number in "012":
        mine, theirs = (folder / number / "checkpoints" for folder in (tmp_path / "swept", whole))
        assert_same_bits(mine, theirs)


def test_a_job_gives_the_weights_of_a_run_of_its_own(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    alone = [word for word in TINY if word not in ("-m", "hydra.sweep.dir=swept")]
    assert trainings.train(tmp_path, *alone, "seed=3", "hydra.run.dir=alone") == 0, output(tmp_path)
    assert_same_bits(tmp_path / "alone" / "checkpoints", whole / "2" / "checkpoints")


def test_a_job_that_hangs_or_takes_all_memory_spoils_no_other(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = [TROUBLE, "+callbacks.trouble.kind=hangs,memory,none", "sweep.job_timeout=300"]
    assert trainings.train(tmp_path, *TINY, *words) == 1, output(tmp_path)
    hangs, memory, none = rows(tmp_path)
    assert (hangs["state"], hangs["error"]) == ("FAIL", "the job took longer than sweep.job_timeout=300 s")
    assert memory["state"] == "FAIL"
    assert "MemoryError" in memory["error"]
    assert none["state"] == "COMPLETE"


def test_a_worker_that_is_killed_spoils_no_other_job(trainings: Trainings, tmp_path: Path) -> None:
    """As the kernel does where memory is short; what the other worker was at ends with it, and is begun again."""
    (tmp_path / "own.py").write_text(OWN)
    words = [TROUBLE, "+callbacks.trouble.kind=killed,none,other", "sweep.workers=2", "hydra/launcher=joblib"]
    done = trainings.run(tmp_path, *TINY, *words, "sweep.max_retries=0")
    assert done.returncode == 1, done.stderr
    assert "A worker was killed" in done.stdout
    found = {row["+callbacks.trouble.kind"]: (row["state"], row["error"]) for row in rows(tmp_path)}
    assert found == {
        "killed": ("FAIL", "its process was killed"),
        "none": ("COMPLETE", ""),
        "other": ("COMPLETE", ""),
    }
    killed = next(row["job"] for row in rows(tmp_path) if row["state"] == "FAIL")
    assert statuses(tmp_path) == {**FINISHED, "": ["FAILED"], killed: ["KILLED"]}


def test_what_hangs_in_native_code_ends_the_sweep_and_is_not_tried_for_ever(
    trainings: Trainings, tmp_path: Path
) -> None:
    """Where jobs run in the process of the sweep itself."""
    (tmp_path / "own.py").write_text(OWN)
    words = [TROUBLE, "+callbacks.trouble.kind=none,native,other", "sweep.job_timeout=300"]
    assert trainings.train(tmp_path, *TINY, *words, "sweep.max_retries=0") == 1
    assert (
        "A job that hangs in native code ends this process 60 s after sweep.job_timeout=300 and writes its stack trace "
        "to timeout.txt in its folder. Resume the sweep with sweep.resume=last then."
    ) in output(tmp_path)
    assert trainings.train(tmp_path, *ON) == 1, output(tmp_path)
    traces = tmp_path / "swept" / "1" / "timeout.txt"
    reason = f"it took longer than sweep.job_timeout and hung in native code: see the stack trace in {traces}"
    assert [(row["state"], row["error"]) for row in rows(tmp_path)] == [
        ("COMPLETE", ""),
        ("FAIL", reason),
        ("COMPLETE", ""),
    ]
    assert f"#1 failed: {reason}" in output(tmp_path)
    assert "in on_epoch_end" in traces.read_text()


def test_workers_go_on_without_what_began_them(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = [TROUBLE, "+callbacks.trouble.kind=waits", "seed=1,2,3", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *words) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(signal.SIGKILL)
        sweep.wait()
        refused, meanwhile = trainings.run(tmp_path, *ON), statuses(tmp_path)
        (tmp_path / "go.mark").touch()
        while any_at_work(tmp_path / "swept"):
            time.sleep(0.1)
        said = sweep.stderr
    assert refused.returncode == 1
    assert re.fullmatch(
        rf"error: worker processes (\d+), (\d+) of the sweep in {tmp_path}/swept still run, although their sweep "
        r"process has ended: expected none. They end when no job waits: try again then, or stop them \(kill \1 \2\) "
        r"and resume at once.",
        refused.stderr.strip().splitlines()[-1],
    )
    assert meanwhile == {"": ["RUNNING"], "0": ["RUNNING"], "1": ["RUNNING"]}
    assert said.endswith(
        f"The sweep process has ended: write the summary with sweep.resume=last hydra.sweep.dir={tmp_path}/swept\n"
    )
    summed = trainings.run(tmp_path, *ON)
    assert summed.returncode == 0, summed.stderr
    assert [(row["state"], row["epochs"]) for row in rows(tmp_path)] == [("COMPLETE", "2")] * 3
    assert statuses(tmp_path) == FINISHED


def test_a_signal_reaches_the_workers(trainings: Trainings, tmp_path: Path) -> None:
    words = ["seed=1,2", "epochs=500", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *words) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(signal.SIGTERM)
        assert sweep.wait() == 143, sweep.stderr
    assert statuses(tmp_path) == {"": ["KILLED"], "0": ["KILLED"], "1": ["KILLED"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_stops_each_worker_once(
    trainings: Trainings, tmp_path: Path, number: signal.Signals
) -> None:
    """As Ctrl+C at a terminal: workers have the signal already when the sweep passes it on."""
    words = ["seed=1,2", "epochs=500", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *words, group=True) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(number, group=True)
        assert sweep.wait() == 128 + number, sweep.stderr
    assert statuses(tmp_path) == {"": ["KILLED"], "0": ["KILLED"], "1": ["KILLED"]}
    for job in "01":
        assert f"Stopped by {number.name}, with all" in (tmp_path / "swept" / job / "train.log").read_text()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Half a megabyte, as the output folder of the second job."""
    yield from mounted(tmp_path / "swept" / "1", *tmpfs("512k"))


def test_a_disk_that_is_full_in_one_job(trainings: Trainings, full_disk: Path, whole: Path) -> None:
    folder = full_disk.parents[1]
    assert trainings.train(folder, *TINY, "checkpoint.max_to_keep=99", "seed=1,2,3") == 1
    found = rows(folder)
    assert [row["state"] for row in found] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "No space left on device" in found[1]["error"]
    subprocess.run(["mount", "-o", "remount,size=300m", full_disk], check=True)
    assert trainings.train(folder, *ON) == 0, output(folder)
    assert [row["state"] for row in rows(folder)] == ["COMPLETE"] * 3
    assert_same_bits(full_disk / "checkpoints", whole / "1" / "checkpoints")


@pytest.mark.long
def test_two_sweeps_that_begin_together_on_one_store(trainings: Trainings, tmp_path: Path) -> None:
    words = [*TINY[:-1], "seed=1,2"]
    with (
        trainings.started(tmp_path, *words, "hydra.sweep.dir=one", store=False) as one,
        trainings.started(tmp_path, *words, "hydra.sweep.dir=other", store=False) as other,
    ):
        for sweep in (one, other):
            assert sweep.wait() == 0, sweep.stderr
    found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert sorted(Counter(run.data.tags["sweep"] for run in found).values()) == [3, 3]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_damaged_queue_is_refused_and_a_new_sweep_takes_what_was_finished(
    trainings: Trainings, tmp_path: Path
) -> None:
    fault = {"call": STEP, "number": 20, "when": "before"}
    words = [*TINY, "seed=1,2,3", "optimizer.learning_rate=0.01"]
    assert trainings.train(tmp_path, *words, fault=fault) == -9
    study = tmp_path / "swept" / "study.journal"
    lines = study.read_bytes().splitlines(keepends=True)
    study.write_bytes(b"".join([*lines[:3], lines[3][:5] + b"\n", *lines[4:]]))
    assert trainings.train(tmp_path, *ON) == 1
    assert output(tmp_path).splitlines()[-1] == (
        f"error: the queue {study} is corrupt: expected an event in line 4, received something else. Start the same "
        "command again without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: a grid takes "
        "the jobs that finished from the store, random and tpe draw again."
    )
    listed = trainings.run(tmp_path, "folders=[swept]", door="doctor")
    assert "line 4 of study.journal is corrupt" in " ".join(listed.stdout.split())
    assert statuses(tmp_path) == {"": ["RUNNING"], "0": ["FINISHED"], "1": ["RUNNING"]}
    again = [word.replace("hydra.sweep.dir=swept", "hydra.sweep.dir=again/swept") for word in words]
    assert trainings.train(tmp_path, *again, "sweep.reuse=true") == 0, output(tmp_path)
    assert [row["state"] for row in rows(tmp_path / "again")] == ["COMPLETE"] * 3
    found = {number: Counter(runs)["FINISHED"] for number, runs in statuses(tmp_path).items()}
    assert found == {"": 1, "0": 1, "1": 1, "2": 1}
