"""Time limits of jobs, and retries of jobs that failed or whose process was killed."""

import faulthandler
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from optuna.trial import FrozenTrial, TrialState

from experiments.errors import ExperimentError
from experiments.sweeps.queue import Queue, cell_of

TRACES = "timeout.txt"
"""File in the job's folder with the stack trace at the timeout."""
GRACE_SECONDS = 60
"""Time for a job to close its run after the timeout. If it hangs in native code, its process ends afterwards."""
logger = logging.getLogger(__name__)


class JobTimeoutError(ExperimentError):
    """A job that took longer than `sweep.job_timeout`."""


@contextmanager
def time_limit(seconds: float | None, folder: Path) -> Iterator[None]:
    """Raises JobTimeoutError in a block that takes longer than `seconds`. None means no limit.

    If native code prevents the exception, the process exits GRACE_SECONDS later. `folder` is the folder of the job.
    """
    traces = folder / TRACES
    traces.unlink(missing_ok=True)  # from an earlier attempt
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise JobTimeoutError(f"the job took longer than sweep.job_timeout={seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    with traces.open("w") as file:
        # faulthandler is written in C, so it works even if native code hangs. `chain` also triggers `stop`.
        # all_threads=False, because reading the frames of running threads can crash.
        faulthandler.register(signal.SIGALRM, file, all_threads=False, chain=True)
        faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=2)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            faulthandler.unregister(signal.SIGALRM)
            signal.signal(signal.SIGALRM, before)
    if not traces.stat().st_size:
        traces.unlink()


def failure_reason(folder: Path) -> str:
    """Reason why a process ended during a job. `folder` is the folder of the job."""
    if timed_out(folder):
        return (
            f"it took longer than sweep.job_timeout and hung in native code: see the stack trace in {folder / TRACES}"
        )
    return "its process was killed"


def timed_out(folder: Path) -> bool:
    traces = folder / TRACES
    return traces.exists() and traces.stat().st_size > 0


class Retries:
    """Retries of jobs, at most `max_retries` for each. `folder` is the folder of the sweep."""

    def __init__(self, queue: Queue, folder: Path, max_retries: int) -> None:
        self._queue, self._folder, self._max_retries = queue, folder, max_retries
        self._quarantined: dict[int, int] = {}  # number -> attempt

    def take_up(self) -> None:
        """Queues the interrupted and failed jobs of an earlier start again, unless they have used up their retries."""
        _, killed = self._fail_orphans()
        for number, trial in self._queue.jobs().items():
            if trial.state == TrialState.FAIL:
                charged = number not in killed or timed_out(self._folder_of(number))
                self._queue_again(number, trial.user_attrs["attempt"] + charged)

    def quarantine(self) -> bool:
        """Fails the jobs of killed workers and keeps them for a retry. Returns False if there are none.

        A job that was the only one is charged an attempt. Of several jobs none is charged, because any of them may
        have caused the kill. A job that timed out is not retried.
        """
        found, killed = self._fail_orphans()
        for number, trial in killed.items():
            if timed_out(self._folder_of(number)):
                logger.warning("#%d failed: %s.", number, failure_reason(self._folder_of(number)))
            else:
                self._quarantined[number] = trial.user_attrs["attempt"] + (len(killed) == 1)
        return found

    def _fail_orphans(self) -> tuple[bool, dict[int, FrozenTrial]]:
        """Returns True if workers were killed while they had a trial, and their jobs by number."""
        orphans = self._queue.orphans()
        for orphan in orphans:
            self._queue.killed(orphan)
        self._queue.fill()
        return bool(orphans), {each.user_attrs["job"]: each for each in orphans if "job" in each.user_attrs}

    def queue_one_quarantined(self) -> bool:
        """Queues one of the kept jobs, so that it runs by itself. Returns False if none is left."""
        while self._quarantined:
            if self._queue_again(*self._quarantined.popitem()):
                return True
        return False

    def _queue_again(self, number: int, attempt: int) -> bool:
        if attempt > self._max_retries:
            return False
        trial = self._queue.jobs()[number]
        self._queue.enqueue(cell_of(trial), number, trial.user_attrs["repeat"], attempt)
        return True

    def _folder_of(self, number: int) -> Path:
        return self._folder / str(number)
