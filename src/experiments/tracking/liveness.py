"""Detection of the process that works on a run, on this machine or another one."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import TYPE_CHECKING

from experiments import files
from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 300
"""Time without a heartbeat after which a run on another machine is considered dead."""
BEAT_SECONDS = 60.0
CLOCK_SECONDS = 86_400
"""The clocks of two machines differ by less: an older heartbeat is not waited for."""
LOOK_SECONDS = 2.0
"""Seconds between two queries for the heartbeat of a process on another machine."""
LOCK = "run.lock"
_seen: dict[str, tuple[str | None, float]] = {}
"""The last heartbeat of a run or process, and the time on this machine's clock at which it was seen first."""


def signs_of_life(output_dir: Path) -> dict[str, str]:
    """Tags that identify the process of a run: host, process id, heartbeat (seconds since 1970) and run folder."""
    process = {"host": socket.gethostname(), "pid": str(os.getpid()), "heartbeat": f"{time.time():.0f}"}
    return {**process, "output_dir": str(output_dir.absolute())}


def is_here(tags: Mapping[str, str]) -> bool:
    return tags.get("host") == socket.gethostname()


def is_alive(run: "Run") -> bool:
    """Returns True if a process works on the run; on another machine, if its clock is right. See `is_at_work`."""
    return is_worked_on(run.info.status, run.data.tags)


def is_worked_on(status: str, tags: Mapping[str, str]) -> bool:
    """Returns True if a process works on the run with this status and these tags (see `signs_of_life`)."""
    folder = Path(tags["output_dir"]) if "output_dir" in tags else None
    if folder is not None and is_in_use(folder):
        return True
    if status != "RUNNING":
        return False
    if not is_here(tags):
        return abs(time.time() - heartbeat(tags)) < HEARTBEAT_SECONDS
    # A lock file that exists but is not locked belongs to a process that has ended.
    return (folder is None or not os.path.exists(folder / LOCK)) and _is_running(tags)  # noqa: PTH110 - see is_in_use


def _is_running(tags: Mapping[str, str]) -> bool:
    """Returns True if the process of the tags runs; a later process with the same id started after the heartbeat."""
    import psutil

    try:
        process = psutil.Process(int(tags["pid"]))
        began: float = process.create_time()
        return process.status() != psutil.STATUS_ZOMBIE and began <= heartbeat(tags) + 1
    except (KeyError, ValueError, OverflowError, psutil.NoSuchProcess):
        return False


def heartbeat(tags: Mapping[str, str]) -> float:
    """Returns the time of the last heartbeat, in seconds since 1970; 0 if the tag is missing or not a time."""
    text = tags.get("heartbeat", "")[:20]
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


def silence(name: str, tags: Mapping[str, str]) -> float:
    """Returns the seconds on this machine's clock since the heartbeat in the tags was seen first.

    Two calls for different runs or processes observe both at the same time.
    """
    if name not in _seen or _seen[name][0] != tags.get("heartbeat"):
        _seen[name] = tags.get("heartbeat"), time.monotonic()
    return time.monotonic() - _seen[name][1]


def is_at_work(client: "MlflowClient", run: "Run") -> bool:
    """Returns True if a process works on the run. On another machine, waits for its next heartbeat or the timeout.

    Clocks of machines differ: the timeout is measured here, and a heartbeat may be up to CLOCK_SECONDS old, or ahead.
    """
    tags, run_id = run.data.tags, run.info.run_id
    if is_here(tags) or is_in_use(Path(tags.get("output_dir", "/"))):
        return is_alive(run)
    if run.info.status != "RUNNING":
        return False
    longest = HEARTBEAT_SECONDS if time.time() - heartbeat(tags) < CLOCK_SECONDS else 0
    if (left := longest - silence(run_id, tags)) > 0:
        text = "Run %s may still be at work on %s: waiting for its next sign of life, or for %.0f s without one."
        logger.warning(text, run_id, tags.get("host"), left)
    looked = time.monotonic()
    while True:
        run = client.get_run(run_id)
        if time.monotonic() - looked > BEAT_SECONDS:  # The store was unavailable, or this process was suspended.
            _seen.pop(run_id, None)
        looked = time.monotonic()
        if (run.info.status, run.data.tags.get("heartbeat")) != ("RUNNING", tags.get("heartbeat")):
            return is_worked_on(run.info.status, {**run.data.tags, "heartbeat": f"{time.time():.0f}"})
        if silence(run_id, tags) >= longest:
            return False
        time.sleep(LOOK_SECONDS)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Locks the run folder against other processes. Raises ExperimentError if another process works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        # A link would lead writes to another file, and a pipe blocks.
        if path.name.startswith((LOCK, "journal.")) and (path.is_symlink() or not path.is_file()):
            raise ExperimentError(f"'{path}' is a link, or not a file. Expected a file that the run wrote: remove it.")
    with files.locked(folder / LOCK, wait=False) as acquired:
        if not acquired:
            raise ExperimentError(
                f"another process works in '{folder}': expected a run that no other process works on. "
                "Wait until that process ends, or stop it."
            )
        yield


def is_in_use(folder: Path) -> bool:
    """Returns True if a process, possibly this one, works in the folder."""
    return os.path.isfile(folder / LOCK) and files.is_locked(folder / LOCK)  # noqa: PTH113 - accepts any tag, unlike pathlib


class Heartbeat(Thread):
    """Calls `beat` every `interval` seconds in its own thread; an upload may block the delivery thread for minutes."""

    def __init__(self, beat: Callable[[], None], *, interval: float = BEAT_SECONDS) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._beat = beat
        self._interval = interval
        self._stopped = Signal()

    def stop(self) -> None:
        """Stops the thread, without waiting for a call that blocks while the store is unavailable."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._beat()
