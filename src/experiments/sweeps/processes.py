"""Signals of the sweep process, forwarded to the workers that it has started.

A signaled worker completes its step and closes its run, as a single run does.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread, Timer
from types import FrameType

import psutil

from experiments.cli.signals import SIGNALS
from experiments.sweeps.members import Members
from experiments.tracking.patience import received

PATIENCE_SECONDS = 15.0
NOTICE_SECONDS = 1.0
"""Delay before a signal is forwarded. A signal to the process group has reached all workers by then; sending them a
second one would end their runs at once."""
STOP = signal.SIGURG
"""Signal from the sweep process to its workers. Without a handler, as during imports, it is ignored by default."""


@contextmanager
def passed_on(members: Members, *, ends_sweep: bool) -> Iterator[None]:
    """Forwards signals to the workers that this process starts during the block, and ends the sweep if `ends_sweep`.

    Workers end their current job and take no other one. This process exits after that, but no later than after
    PATIENCE_SECONDS. A second signal ends it at once.
    """

    def end() -> None:
        closing = Thread(target=members.close, daemon=True)  # a storage that hangs must not hold back the signal
        if ends_sweep:
            closing.start()
        workers = psutil.Process().children(recursive=True)
        time.sleep(NOTICE_SECONDS if workers else 0)
        for worker in workers:
            with suppress(psutil.NoSuchProcess):  # already ended
                worker.send_signal(STOP)
        members.wait_for_children(PATIENCE_SECONDS)
        if ends_sweep:
            closing.join(NOTICE_SECONDS)

    # In a thread, as the interrupted code may hold a lock of the storage, which it releases only after `stop`.
    ending = Thread(target=end, daemon=True)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        received.append(number)
        ending.start()
        if psutil.Process().children():
            ending.join(PATIENCE_SECONDS)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if ending.ident is not None:
            ending.join(NOTICE_SECONDS)


@contextmanager
def at_work() -> Iterator[Callable[[], bool]]:
    """Ends the current job when STOP arrives during the block. Yields a function that returns True from then on."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal stopped
        stopped = True
        received.append(number)
        if callable(signal.getsignal(signal.SIGTERM)):
            signal.raise_signal(signal.SIGTERM)
        elif {*received} == {STOP}:  # No run is stopping. One that prepares its training must not begin it.
            Timer(NOTICE_SECONDS, os.kill, (os.getpid(), STOP)).start()

    before = signal.signal(STOP, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(STOP, before)
