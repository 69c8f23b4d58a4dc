"""Faults during a sweep: killed processes, hanging jobs, memory errors, full disks and corrupt queues."""

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
from optuna import load_study
from tests.disks import mounted, tmpfs
from tests.trainings import Trainings, assert_same_bits, output

from experiments.sweeps.members import WORKER, Members
from experiments.sweeps.study_storage import storage

pytestmark = pytest.mark.slow
TINY = [
    *("-m", "data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "epochs=2", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.every_n_steps=3", "logging.log_model=false"),
    *("logging.log_figures=false", "tensorboard.graph=false", "logging.system_metrics=false", "hydra.sweep.dir=swept"),
]
RESUME = ["-m", "sweep.resume=last", "hydra.sweep.dir=swept"]
STEP = "experiments.checkpoints.callback.Checkpoints.on_train_batch_end"
OWN = """
import ctypes
import faulthandler
import os
import signal
import time
from pathlib import Path

import keras


def expire_time_limit():
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
        if self.kind == "stopped" and not Path("stopped.mark").exists():
            Path("stopped.mark").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        if self.kind == "memory":
            bytearray(1 << 50)
        if self.kind == "hangs":
            expire_time_limit()
            time.sleep(600)
        if self.kind == "native":
            expire_time_limit()
            faulthandler.dump_traceback_later(1.5, exit=True, file=2)  # instead of 60 s after the timeout
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
    """Maps each job number to the statuses of its runs. The parent run has an empty number."""
    found: dict[str, list[str]] = {}
    for run in MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"]):
        found.setdefault(run.data.tags.get("sweep.job", ""), []).append(run.info.status)
    return found


FINISHED = {number: ["FINISHED"] for number in ("", "0", "1", "2")}


@pytest.fixture(scope="module")
def uninterrupted(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert trainings.train(folder, *TINY, "seed=1,2,3") == 0, output(folder)
    return folder / "swept"


def test_killed_sweep_resumes_within_its_job(trainings: Trainings, uninterrupted: Path, tmp_path: Path) -> None:
    fault = {"call": STEP, "number": 19, "when": "before"}
    assert trainings.train(tmp_path, *TINY, "seed=1,2,3", fault=fault) == -9
    assert statuses(tmp_path) == {
        "": ["RUNNING"],
        "0": ["FINISHED"],
        "1": ["RUNNING"],
    }
    assert trainings.train(tmp_path, *RESUME) == 0, output(tmp_path)
    assert statuses(tmp_path) == FINISHED
    assert [row["state"] for row in rows(tmp_path)] == ["COMPLETE"] * 3
    for number in "012":
        mine, theirs = (folder / number / "checkpoints" for folder in (tmp_path / "swept", uninterrupted))
        assert_same_bits(mine, theirs)


def test_job_is_bit_exact_to_single_run(trainings: Trainings, uninterrupted: Path, tmp_path: Path) -> None:
    single = [override for override in TINY if override not in ("-m", "hydra.sweep.dir=swept")]
    overrides = [*single, "seed=3", "hydra.run.dir=single", "hydra.job.chdir=true"]
    assert trainings.train(tmp_path, *overrides) == 0, output(tmp_path)
    # Relative paths, such as that of the store, count from the folder of the start.
    assert list(tmp_path.glob("**/mlflow.db")) == [tmp_path / "mlflow.db"]
    assert_same_bits(tmp_path / "single" / "checkpoints", uninterrupted / "2" / "checkpoints")


def test_hanging_job_and_memory_error_affect_no_other_job(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    overrides = [TROUBLE, "+callbacks.trouble.kind=hangs,memory,none", "sweep.job_timeout=300"]
    assert trainings.train(tmp_path, *TINY, *overrides) == 1, output(tmp_path)
    hangs, memory, none = rows(tmp_path)
    assert (hangs["state"], hangs["error"]) == ("FAIL", "the job took longer than sweep.job_timeout=300 s")
    assert memory["state"] == "FAIL"
    assert "MemoryError" in memory["error"]
    assert none["state"] == "COMPLETE"


def test_killed_worker_affects_no_other_job(trainings: Trainings, tmp_path: Path) -> None:
    """Kills a worker, as the kernel does if memory is short. Joblib then ends the other one, whose job is retried."""
    (tmp_path / "own.py").write_text(OWN)
    overrides = [TROUBLE, "+callbacks.trouble.kind=killed,none,other", "sweep.workers=2", "hydra/launcher=joblib"]
    done = trainings.run(tmp_path, *TINY, *overrides, "sweep.max_retries=0")
    assert done.returncode == 1, done.stderr
    assert "A worker was killed" in done.stderr
    found = {row["+callbacks.trouble.kind"]: (row["state"], row["error"]) for row in rows(tmp_path)}
    assert found == {
        "killed": ("FAIL", "its process was killed"),
        "none": ("COMPLETE", ""),
        "other": ("COMPLETE", ""),
    }
    killed = next(row["job"] for row in rows(tmp_path) if row["state"] == "FAIL")
    assert statuses(tmp_path) == {**FINISHED, "": ["FAILED"], killed: ["KILLED"]}


def test_signal_to_worker_ends_no_sweep(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    overrides = [TROUBLE, "+callbacks.trouble.kind=stopped,none", "sweep.workers=1", "hydra/launcher=joblib"]
    assert trainings.train(tmp_path, *TINY, *overrides, "sweep.max_retries=0") == 0, output(tmp_path)
    assert [row["state"] for row in rows(tmp_path)] == ["COMPLETE"] * 2
    assert statuses(tmp_path) == {"": ["FINISHED"], "0": ["FINISHED"], "1": ["FINISHED"]}


def test_job_hanging_in_native_code_ends_sweep_process_and_uses_up_retries(
    trainings: Trainings, tmp_path: Path
) -> None:
    """Jobs run in the sweep process itself, as it has only one worker."""
    (tmp_path / "own.py").write_text(OWN)
    overrides = [TROUBLE, "+callbacks.trouble.kind=none,native,other", "sweep.job_timeout=300"]
    assert trainings.train(tmp_path, *TINY, *overrides, "sweep.max_retries=0") == 1
    assert trainings.train(tmp_path, *RESUME, TROUBLE) == 1, output(tmp_path)
    traces = tmp_path / "swept" / "1" / "timeout.txt"
    reason = f"it took longer than sweep.job_timeout and hung in native code: see the stack trace in {traces}"
    assert [(row["state"], row["error"]) for row in rows(tmp_path)] == [
        ("COMPLETE", ""),
        ("FAIL", reason),
        ("COMPLETE", ""),
    ]
    assert f"#1 failed: {reason}" in output(tmp_path)
    assert "in on_epoch_end" in traces.read_text()


def test_workers_continue_after_sweep_process_is_killed(trainings: Trainings, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    overrides = [TROUBLE, "+callbacks.trouble.kind=waits", "seed=1,2,3", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *overrides) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(signal.SIGKILL)
        sweep.wait()
        refused, running = trainings.run(tmp_path, *RESUME, TROUBLE), statuses(tmp_path)
        (tmp_path / "go.mark").touch()
        study = load_study(study_name=None, storage=storage(None, tmp_path / "swept"))
        while Members(study, tmp_path / "swept").living(WORKER):
            time.sleep(0.1)
        time.sleep(1)  # The last worker prints a line after it has left.
        printed = sweep.stderr
    assert refused.returncode == 1
    assert re.fullmatch(
        rf"error: other processes work on the sweep in {tmp_path}/swept: expected none, received "
        r"worker (\d+) on (\S+), worker (\d+) on \2. Workers end when no job waits: try again then, or stop them "
        r"\(kill \1 \3\).",
        refused.stderr.strip().splitlines()[-1],
    )
    assert running == {"": ["RUNNING"], "0": ["RUNNING"], "1": ["RUNNING"]}
    assert printed.endswith(
        f"The sweep process has ended: write the summary with sweep.resume=last hydra.sweep.dir={tmp_path}/swept\n"
    )
    summed = trainings.run(tmp_path, *RESUME, TROUBLE)
    assert summed.returncode == 0, summed.stderr
    assert [(row["state"], row["epochs"]) for row in rows(tmp_path)] == [("COMPLETE", "2")] * 3
    assert statuses(tmp_path) == FINISHED


def test_signal_to_sweep_process_stops_workers(trainings: Trainings, tmp_path: Path) -> None:
    overrides = ["seed=1,2", "epochs=500", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *overrides) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(signal.SIGTERM)
        assert sweep.wait() == 143, sweep.stderr
    assert statuses(tmp_path) == {"": ["KILLED"], "0": ["KILLED"], "1": ["KILLED"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signal_to_process_group_stops_each_worker_once(
    trainings: Trainings, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl+C at a terminal signals the process group: the workers receive it before the sweep process forwards it."""
    overrides = ["seed=1,2", "epochs=500", "sweep.workers=2", "hydra/launcher=joblib"]
    with trainings.started(tmp_path, *TINY, *overrides, group=True) as sweep:
        while len(list(tmp_path.glob("swept/[01]/checkpoints/*.json"))) < 2 and sweep.goes_on():
            time.sleep(0.1)
        sweep.send(number, group=True)
        assert sweep.wait() == 128 + number, sweep.stderr
    assert statuses(tmp_path) == {"": ["KILLED"], "0": ["KILLED"], "1": ["KILLED"]}
    for job in "01":
        assert f"Stopped by {number.name}; all completed" in (tmp_path / "swept" / job / "train.log").read_text()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """File system of 512 KiB, mounted as the output folder of the second job."""
    yield from mounted(tmp_path / "swept" / "1", *tmpfs("512k"))


def test_full_disk_fails_one_job_which_resumes(trainings: Trainings, full_disk: Path, uninterrupted: Path) -> None:
    folder = full_disk.parents[1]
    assert trainings.train(folder, *TINY, "checkpoint.max_to_keep=99", "seed=1,2,3") == 1
    found = rows(folder)
    assert [row["state"] for row in found] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "No space left on device" in found[1]["error"]
    subprocess.run(["mount", "-o", "remount,size=300m", full_disk], check=True)
    assert trainings.train(folder, *RESUME) == 0, output(folder)
    assert [row["state"] for row in rows(folder)] == ["COMPLETE"] * 3
    assert_same_bits(full_disk / "checkpoints", uninterrupted / "1" / "checkpoints")


@pytest.mark.long
def test_two_sweeps_start_at_once_with_one_new_store(trainings: Trainings, tmp_path: Path) -> None:
    overrides = [*TINY[:-1], "seed=1,2"]
    with (
        trainings.started(tmp_path, *overrides, "hydra.sweep.dir=one", store=False) as one,
        trainings.started(tmp_path, *overrides, "hydra.sweep.dir=other", store=False) as other,
    ):
        for sweep in (one, other):
            assert sweep.wait() == 0, sweep.stderr
    found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert sorted(Counter(run.data.tags["sweep"] for run in found).values()) == [3, 3]
    assert {run.info.status for run in found} == {"FINISHED"}


def test_corrupt_queue_is_refused_and_new_sweep_reuses_finished_jobs(trainings: Trainings, tmp_path: Path) -> None:
    fault = {"call": STEP, "number": 20, "when": "before"}
    overrides = [*TINY, "seed=1,2,3", "optimizer.learning_rate=0.01"]
    assert trainings.train(tmp_path, *overrides, fault=fault) == -9
    study = tmp_path / "swept" / "study.journal"
    lines = study.read_bytes().splitlines(keepends=True)
    study.write_bytes(b"".join([*lines[:9], lines[9][:5] + b"\n", *lines[10:]]))
    assert trainings.train(tmp_path, *RESUME) == 1
    assert f"error: the queue {study} cannot be used: JSONDecodeError: " in output(tmp_path).splitlines()[-1]
    assert "If it is lost, start the same command again without sweep.resume" in output(tmp_path).splitlines()[-1]
    listed = trainings.run(tmp_path, "folders=[swept]", door="doctor")
    assert "study.journal is corrupt" in " ".join(listed.stdout.split())
    assert statuses(tmp_path) == {"": ["RUNNING"], "0": ["FINISHED"], "1": ["RUNNING"]}
    again = [override.replace("hydra.sweep.dir=swept", "hydra.sweep.dir=again/swept") for override in overrides]
    assert trainings.train(tmp_path, *again, "sweep.reuse=true") == 0, output(tmp_path)
    assert [row["state"] for row in rows(tmp_path / "again")] == ["COMPLETE"] * 3
    found = {number: Counter(runs)["FINISHED"] for number, runs in statuses(tmp_path).items()}
    assert found == {"": 1, "0": 1, "1": 1, "2": 1}
