"""The background thread that carries the journal to the tracking store."""

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
    """Delivers every `interval` seconds; while the store is away, the pauses double up to a minute.

    Few large requests cost less of the interpreter's lock than many small ones, which the training thread needs.
    """

    def __init__(self, folder: Path, sink: Sink, *, interval: float) -> None:
        super().__init__(name="journal-delivery", daemon=True)
        self._folder = folder
        self._sink = sink
        self._interval = interval
        self._pause = interval
        self._away_since: float | None = None
        self._ending = Signal()
        self._stopped = Signal()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                ending = self._ending.is_set()
                if self._deliver() and ending:
                    return
                (self._stopped if ending else self._ending).wait(self._pause)
        except Exception:
            _log.exception("Delivery to the tracking store stopped; the events are kept in %s", self._folder)

    def finish(self, timeout: float, *, at_most: float | None = None) -> None:
        """Delivers what is left; after `timeout` seconds without progress the rest stays in the journal.

        at_most: seconds after which it stays there in any case.
        """
        self._ending.set()
        before = acknowledged(self._folder)
        last = math.inf if at_most is None else time.monotonic() + at_most
        deadline = time.monotonic() + timeout
        while self.is_alive() and time.monotonic() < min(deadline, last):
            self.join(JOIN_SECONDS)
            now = acknowledged(self._folder)
            if now != before or self._uploading():
                before, deadline = now, time.monotonic() + timeout
        self._stopped.set()

    def _uploading(self) -> bool:
        """A large folder is one event and may take minutes; MLflow's own timeout ends an upload that hangs."""
        return self._away_since is None and next_event(self._folder) == "artifacts"

    def _deliver(self) -> bool:
        """Whether nothing is left to deliver."""
        try:
            while not self._stopped.is_set() and deliver_chunk(self._folder, self._sink):
                pass
        except (Unavailable, OSError) as error:  # the store is away, or what it took cannot be noted on a full disk
            self._wait_longer(error)
            return False
        if self._away_since is not None:
            _log.info("The tracking store is back after %.0f s", time.monotonic() - self._away_since)
        self._away_since = None
        self._pause = self._interval
        return True

    def _wait_longer(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            _log.warning("The tracking store is away; training goes on and events wait in %s: %s", self._folder, error)
        longest = LONGEST_PAUSE_AT_END if self._ending.is_set() else LONGEST_PAUSE
        self._pause = min(2 * self._pause, longest)
