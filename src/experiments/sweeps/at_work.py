"""Which processes take jobs from a sweep's queue: a lock that each of them holds until it ends, however it does."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from experiments.errors import ExperimentError

WORKERS = "workers.lock"


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within, this process is one of them."""
    with (folder / WORKERS).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def any_at_work(folder: Path) -> bool:
    with (folder / WORKERS).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def refuse_workers(folder: Path) -> None:
    """Raises ExperimentError where those of an earlier start still work: their own process was killed alone."""
    if any_at_work(folder):
        numbers = [str(process.pid) for process in psutil.process_iter() if _holds(process, folder / WORKERS)]
        names, stop = (f" {', '.join(numbers)}", f" (kill {' '.join(numbers)})") if numbers else ("", "")
        raise ExperimentError(
            f"processes{names} of the sweep in {folder} still work, though what began them is gone: expected that they "
            f"had ended. They go on until no job waits: try again then, or stop them{stop} and go on at once."
        )


def _holds(process: psutil.Process, lock: Path) -> bool:
    """False for those of other people, whose files nobody else can see."""
    try:
        return str(lock.resolve()) in {file.path for file in process.open_files()}
    except psutil.Error:
        return False
