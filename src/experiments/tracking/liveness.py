"""Whether a process works on a run, as far as can be seen from this machine."""

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
"""A run on another machine that was silent for so long is taken for dead."""
BEAT_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""Between two looks at the heartbeat of a process that cannot be seen from here."""
LOCK = "run.lock"


def signs_of_life(output_dir: Path) -> dict[str, str]:
    """Tags by which a run says which process works on it, and where."""
    process = {"host": socket.gethostname(), "pid": str(os.getpid()), "heartbeat": f"{time.time():.0f}"}
    return {**process, "output_dir": str(output_dir.absolute())}


def is_alive(run: "Run") -> bool:
    return is_worked_on(run.info.status, run.data.tags)


def is_elsewhere(run: "Run") -> bool:
    """Whether its heartbeat alone tells of its process, which works, or worked, on another machine."""
    tags = run.data.tags
    here = "output_dir" in tags and is_in_use(Path(tags["output_dir"]))
    return not here and tags.get("host") != socket.gethostname()


def is_worked_on(status: str, tags: Mapping[str, str]) -> bool:
    """tags: `signs_of_life`."""
    folder = Path(tags["output_dir"]) if "output_dir" in tags else None
    if folder is not None and is_in_use(folder):
        return True
    if status != "RUNNING":
        return False
    if tags.get("host") != socket.gethostname():
        return time.time() - float(tags.get("heartbeat", 0)) < HEARTBEAT_SECONDS
    return (folder is None or not (folder / LOCK).exists()) and _is_running(tags)


def _is_running(tags: Mapping[str, str]) -> bool:
    """Whether the process of these tags is there, where its folder is gone; another may have got its number since."""
    import psutil

    try:
        process = psutil.Process(int(tags["pid"]))
        began: float = process.create_time()
        return process.status() != psutil.STATUS_ZOMBIE and began <= float(tags["heartbeat"]) + 1
    except (KeyError, psutil.NoSuchProcess):
        return False


def is_at_work(client: "MlflowClient", run: "Run") -> bool:
    """Waits for the next sign of a process that cannot be seen from here, or for the silence of a lost machine."""
    sign = run.data.tags.get("heartbeat")
    if is_alive(run) and is_elsewhere(run):
        logger.warning(
            "Run %s may still be at work on %s: waiting for its next sign of life, or for %d s without one.",
            *(run.info.run_id, run.data.tags.get("host"), HEARTBEAT_SECONDS),
        )
    while is_alive(run) and is_elsewhere(run) and run.data.tags.get("heartbeat") == sign:
        time.sleep(LOOK_SECONDS)
        run = client.get_run(run.info.run_id)
    return is_alive(run)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from working on the run of this folder. Raises ExperimentError where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / LOCK, wait=False) as alone:
        if not alone:
            raise ExperimentError(
                f"another process works in '{folder}': expected a run that nobody works on. "
                "Wait for its end, or stop it."
            )
        yield


def is_in_use(folder: Path) -> bool:
    """Whether a process, perhaps this one, works in the folder."""
    return files.is_locked(folder / LOCK)


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
