"""Background thread that sends the events of the journal to the tracking store."""

import logging
import math
import time
from pathlib import Path
from threading import Event as Signal
from threading import Thread

from experiments.tracking.journal import Sink, Unavailable, acknowledged, deliver_chunk, next_event

LONGEST_PAUSE = 60.0
LONGEST_PAUSE_AT_END = 1.0
JOIN_SECONDS = 0.1
_log = logging.getLogger(__name__)


class Delivery(Thread):
    """Delivers every `interval` seconds. While the store is unavailable, the pauses double up to a minute.

    A few large requests hold the interpreter lock, which the training thread needs, for less time than many small ones.
    """

    def __init__(self, folder: Path, sink: Sink, *, interval: float) -> None:
        super().__init__(name="journal-delivery", daemon=True)
        self._folder = folder
        self._sink = sink
        self._interval = interval
        self._pause = interval
        self._unavailable_since: float | None = None
        self._ending = Signal()
        self._stopped = Signal()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                ending = self._ending.is_set()
                if self._deliver() and ending:
                    return
                # `finish` cuts the pause short, but only once: after that, each new attempt waits for its full pause.
                (self._stopped if ending else self._ending).wait(self._pause)
        except Exception:
            _log.exception("Delivery to the tracking store stopped; the events are kept in %s", self._folder)

    def stop(self) -> None:
        self._ending.set()
        self._stopped.set()

    def finish(self, timeout: float, *, at_most: float | None = None) -> None:
        """Waits until all events are delivered, then stops the thread.

        After `timeout` seconds without progress, or `at_most` seconds in total, the rest stays in the journal.
        """
        self._ending.set()
        before = acknowledged(self._folder)
        last = math.inf if at_most is None else time.monotonic() + at_most
        deadline = time.monotonic() + timeout
        while self.is_alive() and time.monotonic() < min(deadline, last):
            self.join(JOIN_SECONDS)
            now = acknowledged(self._folder)
            # An upload, one event, may take minutes. MLflow's own timeout ends one that hangs.
            uploading = self._unavailable_since is None and next_event(self._folder) == "artifacts"
            if now != before or uploading:
                before, deadline = now, time.monotonic() + timeout
        self.stop()

    def _deliver(self) -> bool:
        """Delivers until no event is left; returns False if the store is unavailable."""
        try:
            while not self._stopped.is_set() and deliver_chunk(self._folder, self._sink):
                pass
        except (Unavailable, OSError) as error:  # OSError: a full disk, on which no acknowledgement can be saved
            self._wait_longer(error)
            return False
        if self._unavailable_since is not None:
            _log.info("The tracking store is available again after %.0f s", time.monotonic() - self._unavailable_since)
        self._unavailable_since = None
        self._pause = self._interval
        return True

    def _wait_longer(self, error: Exception) -> None:
        if self._unavailable_since is None:
            self._unavailable_since = time.monotonic()
            text = "The tracking store is unavailable; training continues and events are kept in %s: %s"
            _log.warning(text, self._folder, error)
        longest = LONGEST_PAUSE_AT_END if self._ending.is_set() else LONGEST_PAUSE
        self._pause = min(2 * self._pause, longest)
