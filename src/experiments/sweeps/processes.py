"""The processes of a sweep: who works for it, and how a signal to it reaches its workers.

Each finishes its step then, and closes its run as a single run does.
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
"""In which a signal to the whole process group has reached all of it: a run takes a second one for an order to end."""
STOP = signal.SIGURG
"""From a sweep to its workers. Processes without a handler, such as those that load packages, ignore it by default."""
WORKERS = "workers.lock"


@contextmanager
def passed_on(folder: Path) -> Iterator[None]:
    """Within, a signal ends this process when its workers have ended their jobs, or after PATIENCE_SECONDS.

    They take no other ones, nor any if they were loading their packages.

    folder: of the sweep. A second signal ends this process at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        close(folder)
        workers = psutil.Process().children(recursive=True)
        if workers:
            time.sleep(NOTICE_SECONDS)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):  # has ended meanwhile
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
    """Within, this process is one of the workers, and ends its job when the sweep's process says so."""
    before = signal.signal(STOP, _stop_job)
    try:
        with locked(folder / WORKERS, shared=True):
            yield
    finally:
        signal.signal(STOP, before)


def _stop_job(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Asks the run to stop, unless there is none or a signal of its own has asked it: then SIGTERM has no handler."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGTERM)


def any_at_work(folder: Path) -> bool:
    return is_locked(folder / WORKERS)


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
