"""A job that does not hear that its time is over, as native code does not let Python hear it."""

import collections
import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.trainings import Trainings

from experiments.sweeps import failures


def keep_the_interpreter() -> None:
    collections.deque(itertools.repeat(0), maxlen=0)


def wait_without_it() -> None:
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


HANGS: dict[str, Callable[[], None]] = {
    "keeps the interpreter": keep_the_interpreter,
    "waits without it": wait_without_it,
}


def job(hang: str, folder: str) -> None:
    failures.GRACE_SECONDS = 1
    with failures.time_limit(0.1, Path(folder)):
        HANGS[hang]()


@pytest.mark.parametrize("hang", HANGS)
def test_its_process_ends_and_says_where(trainings: Trainings, tmp_path: Path, hang: str) -> None:
    with trainings.calling(job, hang, str(tmp_path)) as process:
        assert process.wait() == 1
        assert "Timeout" in process.stderr
    assert f"in {HANGS[hang].__name__}" in (tmp_path / "timeout.txt").read_text()
