"""Jobs that take longer than they may, that failed or whose process was killed: how they end and run again."""

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
"""Where a job was when its time was over; in its folder."""
GRACE_SECONDS = 60
"""For a job to hear that its time is over, and to close its run. What hangs outside of Python does not hear."""
logger = logging.getLogger(__name__)


class JobTimeoutError(ExperimentError):
    """A job that took longer than `sweep.job_timeout`."""


@contextmanager
def time_limit(seconds: float | None, folder: Path) -> Iterator[None]:
    """Raises JobTimeoutError in a block that takes longer. Where nobody hears that, the process ends after the grace.

    folder: of the job.
    """
    traces = folder / TRACES
    traces.unlink(missing_ok=True)  # of an earlier attempt
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise JobTimeoutError(f"the job took longer than sweep.job_timeout={seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    with traces.open("w") as file:
        # Both work where Python's own code does not get on any more. Reading the frames of threads that run may crash.
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
    """Of a job whose process ended before it. folder: of the job."""
    if timed_out(folder):
        return f"it took longer than sweep.job_timeout and hung outside of Python: {folder / TRACES} says where"
    return "its process was killed"


def timed_out(folder: Path) -> bool:
    traces = folder / TRACES
    return traces.exists() and traces.stat().st_size > 0


class Retries:
    """Of one start of a sweep. folder: of the sweep; max_retries: how often a job is tried again."""

    def __init__(self, queue: Queue, folder: Path, max_retries: int) -> None:
        self._queue, self._folder, self._max_retries = queue, folder, max_retries
        self._quarantined: dict[int, int] = {}  # number -> attempt

    def take_up(self) -> None:
        """Queues again what an earlier start has left: what was stopped, and what failed, unless too often."""
        for number, trial in self._queue.jobs().items():
            attempt = trial.user_attrs["attempt"]
            if _is_running(trial):
                self._queue.killed(trial)
                self._queue_again(number, attempt + timed_out(self._of(number)))
            elif trial.state == TrialState.FAIL:
                self._queue_again(number, attempt + 1)

    def quarantine(self) -> bool:
        """Ends the jobs whose worker was killed, perhaps by them; False where there is none.

        One that ran alone has done it, and has used up an attempt. Of several nobody knows which one did.
        One that hung has failed.
        """
        killed = {number: trial for number, trial in self._queue.jobs().items() if _is_running(trial)}
        for number, trial in killed.items():
            self._queue.killed(trial)
            if timed_out(self._of(number)):
                logger.warning("#%d failed: %s.", number, failure_reason(self._of(number)))
            else:
                self._quarantined[number] = trial.user_attrs["attempt"] + (len(killed) == 1)
        return bool(killed)

    def queue_one_quarantined(self) -> bool:
        """To be run alone; False where none is left."""
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

    def _of(self, number: int) -> Path:
        """The folder of a job."""
        return self._folder / str(number)


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING
