"""Which jobs run again: those whose process was killed, and those that failed in an earlier start."""

import logging
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from experiments.sweeps.hanging import hung, why_killed
from experiments.sweeps.study import Queue

logger = logging.getLogger(__name__)


class Retries:
    """Of one start of a sweep. folder: of the sweep; at_most: how often a job is tried again."""

    def __init__(self, queue: Queue, folder: Path, at_most: int) -> None:
        self._queue, self._folder, self._at_most = queue, folder, at_most
        self._aside: dict[int, int] = {}  # number -> attempt

    def take_up(self) -> None:
        """Queues again what an earlier start has left: what was stopped, and what failed, unless too often."""
        for number, trial in self._queue.jobs().items():
            attempt = trial.user_attrs["attempt"]
            if _is_running(trial):
                self._queue.killed(trial)
                self._queue_again(number, attempt + hung(self._of(number)))
            elif trial.state == TrialState.FAIL:
                self._queue_again(number, attempt + 1)

    def put_aside(self) -> bool:
        """Ends the jobs whose worker was killed, perhaps by them; False where there is none.

        One that ran alone has done it, and has used up an attempt. Of several nobody knows which one did.
        One that hung has failed.
        """
        killed = {number: trial for number, trial in self._queue.jobs().items() if _is_running(trial)}
        for number, trial in killed.items():
            self._queue.killed(trial)
            if hung(self._of(number)):
                logger.warning("#%d failed: %s.", number, why_killed(self._of(number)))
            else:
                self._aside[number] = trial.user_attrs["attempt"] + (len(killed) == 1)
        return bool(killed)

    def queue_one_put_aside(self) -> bool:
        """To be run alone; False where none is left."""
        while self._aside:
            if self._queue_again(*self._aside.popitem()):
                return True
        return False

    def _queue_again(self, number: int, attempt: int) -> bool:
        if attempt > self._at_most:
            return False
        trial = self._queue.jobs()[number]
        self._queue.enqueue(trial.params, number, trial.user_attrs["repeat"], attempt)
        return True

    def _of(self, number: int) -> Path:
        """The folder of a job."""
        return self._folder / str(number)


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING
