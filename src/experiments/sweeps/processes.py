"""Worker processes of a sweep: detects them and forwards signals of the sweep process to them.

A signaled worker completes its step and closes its run, as a single run does.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from experiments.cli.signals import SIGNALS
from experiments.errors import ExperimentError
from experiments.files import is_locked, locked
from experiments.sweeps.parent_start import close

PATIENCE_SECONDS = 15.0
NOTICE_SECONDS = 1.0
"""Delay before a signal is forwarded. A signal to the process group has reached all workers by then; sending them a
second one would end their runs at once."""
STOP = signal.SIGURG
"""Signal from the sweep process to its workers. Without a handler, as during imports, it is ignored by default."""
WORKERS = "workers.lock"


@contextmanager
def passed_on(folder: Path) -> Iterator[None]:
    """Forwards signals to the workers of the sweep in `folder` during the block.

    Workers end their current job and take no other one. This process exits after that, but no later than after
    PATIENCE_SECONDS. A second signal ends it at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        close(folder)
        workers = psutil.Process().children(recursive=True)
        if workers:
            time.sleep(NOTICE_SECONDS)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):  # already ended
                    worker.send_signal(STOP)
            ends = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < ends and any_at_work(folder):
                time.sleep(0.1)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Registers this process as a worker during the block; STOP ends its current job."""
    before = signal.signal(STOP, _stop_job)
    try:
        with locked(folder / WORKERS, shared=True):
            yield
    finally:
        signal.signal(STOP, before)


def _stop_job(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Stops the current run. SIGTERM has no handler if there is no run, or if it is already stopping."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)


def any_at_work(folder: Path) -> bool:
    return is_locked(folder / WORKERS)


def refuse_workers(folder: Path) -> None:
    """Raises ExperimentError if workers of an earlier start still run because only the sweep process was killed."""
    if any_at_work(folder):
        numbers = [str(process.pid) for process in psutil.process_iter() if _has_open(process, folder / WORKERS)]
        names, stop = (f" {', '.join(numbers)}", f" (kill {' '.join(numbers)})") if numbers else ("", "")
        raise ExperimentError(
            f"worker processes{names} of the sweep in {folder} still run, although their sweep process has ended: "
            f"expected none. They end when no job waits: try again then, or stop them{stop} and resume at once."
        )


def _has_open(process: psutil.Process, lock: Path) -> bool:
    """Returns False also for processes of other users, whose open files are not visible."""
    try:
        return str(lock.resolve()) in {file.path for file in process.open_files()}
    except psutil.Error:
        return False
