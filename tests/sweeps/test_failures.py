"""Time limits of jobs that hang in native code, where Python cannot run its signal handler."""

import collections
import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.trainings import Trainings

from experiments.sweeps import failures


def hang_with_gil() -> None:
    collections.deque(itertools.repeat(0), maxlen=0)


def hang_without_gil() -> None:
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


HANGS: dict[str, Callable[[], None]] = {
    "with GIL": hang_with_gil,
    "without GIL": hang_without_gil,
}


def job(hang: str, folder: str) -> None:
    failures.GRACE_SECONDS = 1
    with failures.time_limit(0.1, Path(folder)):
        HANGS[hang]()


@pytest.mark.parametrize("hang", HANGS)
def test_hanging_job_ends_its_process_and_writes_stack_trace(trainings: Trainings, tmp_path: Path, hang: str) -> None:
    with trainings.calling(job, hang, str(tmp_path)) as process:
        assert process.wait() == 1
        assert "Timeout" in process.stderr
    assert f"in {HANGS[hang].__name__}" in (tmp_path / "timeout.txt").read_text()
