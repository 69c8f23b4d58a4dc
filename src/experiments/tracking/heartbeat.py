"""Says every minute that a run's process is there: a machine elsewhere cannot see it otherwise."""

from collections.abc import Callable
from threading import Event as Signal
from threading import Thread

BEAT_SECONDS = 60.0


class Heartbeat:
    """Calls `beat` every `interval` seconds on a thread of its own: an upload may keep the other one for minutes."""

    def __init__(self, beat: Callable[[], None], *, interval: float = BEAT_SECONDS) -> None:
        self._beat = beat
        self._interval = interval
        self._stopped = Signal()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a beat that hangs in a store that is away."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._beat()
