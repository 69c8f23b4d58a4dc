"""Handles signals that stop a run: the current step is finished first, so that no work is lost."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from experiments.tracking.patience import received

logger = logging.getLogger(__name__)
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals by which a scheduler ends a job or announces its end."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""Signals of a scheduler, of Ctrl+C, and of SLURM before its time limit (`--signal=USR1@60`)."""


class Interruption:
    """Defers signals, if `enabled`. `signal` is the number of the one received; None if there was none."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.signal: int | None = None
        self._enabled = enabled

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defers signals during the block; a signal received then ends the process after the block, if not before.

        Does nothing outside the main thread, where Python does not allow signal handlers.
        """
        if not self._enabled or threading.current_thread() is not threading.main_thread():
            yield
            return
        received.clear()
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.end()

    def end(self) -> None:
        """Exits with status 128 + signal, as shells and schedulers expect, if a signal was received."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            remedy = "Resume with resume=last, or with sweep.resume=last for a sweep."
            logger.warning("Stopped by %s; all completed work is saved. %s", name, remedy)
            raise SystemExit(128 + self.signal)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Notes the signal. A second one ends the process at once, which leaves complete files on disk."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.signal = number
        received.append(number)
