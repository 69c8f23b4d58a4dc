"""Signals that ask a run to stop: the step is finished first, so that nothing is lost."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""From a scheduler that ends a job, and from one that is about to."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""From a scheduler, from Ctrl+C, and from SLURM before its time limit (`--signal=USR1@60`)."""


class Interruption:
    """The signal that came while signals were deferred; None where none did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals are only noted inside, and end the process at its end at the latest.

        Outside of the main thread they are somebody else's.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.end()

    def end(self) -> None:
        """Ends the process, if a signal has come, as shells and schedulers expect of one that a signal ended."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            logger.warning(
                "Stopped by %s, with all that was done saved: resume=last, or sweep.resume=last of a sweep, "
                "goes on from here.",
                name,
            )
            raise SystemExit(128 + self.signal)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A second signal ends the process at once, also within a long operation: what is on disk is whole."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.signal = number
