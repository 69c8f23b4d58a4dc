"""Waiting for a tracking store or a database that is temporarily unavailable."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Thread
from typing import TypeVar

from experiments.errors import ExperimentError
from experiments.tracking.journal import Outage, Unavailable

PATIENCE_SECONDS, SWEEP_SECONDS, LEAVING_SECONDS = 30.0, 600.0, 3.0
"""Seconds that a command, a sweep with its jobs, and a process that ends, wait for a store that answered before; a
training waits for `logging.flush_timeout`."""
LONGEST_PAUSE, LOOK_SECONDS = 10.0, 0.1
least_patience, most_patience = ContextVar("least_patience", default=0.0), ContextVar("most_patience", default=math.inf)
"""Minimum of the seconds that new clients wait, which applies to their first contact too, and maximum for each call."""
received = list[int]()
"""Signals that this process has received and obeys later. After one, calls wait for at most LEAVING_SECONDS."""
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@contextmanager
def waiting(limit: ContextVar[float], seconds: float) -> Iterator[None]:
    """Sets `least_patience` or `most_patience` in the block, in this thread."""
    before = limit.set(seconds)
    try:
        yield
    finally:
        limit.reset(before)


def briefly(call: Callable[[], object], *ignored: type[Exception]) -> None:
    """Calls a function in a thread and waits a few seconds for it: a store that hangs must not prevent an exit."""

    def run() -> None:
        with suppress(*ignored), waiting(most_patience, LEAVING_SECONDS):
            call()

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(2 * LEAVING_SECONDS)


def patiently(
    call: Callable[[], _T], seconds: float, judge: Callable[[Exception], Exception], store: str = "tracking store"
) -> _T:
    """Returns the result of `call`, which is repeated for `seconds` while the store is temporarily unavailable.

    Raises the error that `judge` returns for that of the call, but no Outage, for which an outer call would wait again.
    The first repetition follows at once and in any case: a server closes connections that were not used for a while.
    """
    began, pauses = time.monotonic(), 0
    while True:
        try:
            result = call()
        except Exception as error:
            problem = error if isinstance(error, ExperimentError) else judge(error)
            if not isinstance(problem, Outage):
                if problem is error:
                    raise
                raise problem from error
            pause = min(2.0**pauses / 2, LONGEST_PAUSE) if pauses else 0.0
            longest = min(seconds, most_patience.get(), LEAVING_SECONDS if received else math.inf)
            if pauses and time.monotonic() + pause > began + longest:
                text = f"the {store} is unavailable: {problem} Try again when it answers." if longest else str(problem)
                raise Unavailable(text) from error
            if pauses == 1:
                _log.warning("The %s is unavailable; waiting up to %.0f s: %s", store, longest, problem)
        else:
            if pauses > 1:
                _log.warning("The %s answers again.", store)
            return result
        _sleep(pause)
        pauses += 1


def _sleep(seconds: float) -> None:
    """Sleeps until another signal is received; `time.sleep` continues after a handler that raises no exception."""
    ends, before = time.monotonic() + seconds, len(received)
    while len(received) == before and (rest := ends - time.monotonic()) > 0:
        time.sleep(min(rest, LOOK_SECONDS))
