"""A signal to a sweep reaches its workers: each finishes its step, and closes its run as a single run does."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from experiments.cli.signals import SIGNALS
from experiments.errors import ExperimentError
from experiments.sweeps.parent_start import close

PATIENCE_SECONDS = 15.0

NOTICE_SECONDS = 1.0
"""In which a worker notices a signal that was sent to the whole process group; it takes a second one for an order."""


@contextmanager
def passed_on(folder: Path) -> Iterator[None]:
    """Within, a signal ends this process when its workers have ended their jobs, or after PATIENCE_SECONDS.

    They take no other ones, nor any where they were loading their packages.

    folder: of the sweep. A second signal ends this process at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        close(folder)
        workers = psutil.Process().children(recursive=True)
        if workers:
            time.sleep(NOTICE_SECONDS)
            _signal([worker for worker in workers if _catches(worker, number)], number)
            _wait_for(folder)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(workers: list[psutil.Process], number: int) -> None:
    for worker in workers:
        try:
            os.kill(worker.pid, number)
        except ProcessLookupError:  # has ended meanwhile
            continue


def _catches(process: psutil.Process, number: int) -> bool:
    """Whether it has a handler for the signal: a run that was told to stop has none any more."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # no such process, or no such file system
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _wait_for(folder: Path) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends and any_at_work(folder):
        time.sleep(0.1)


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
