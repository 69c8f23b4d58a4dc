"""Which process works in an output folder: held by the operating system, so that it ends with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import ExperimentError

LOCK = "run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from working on the run of this folder. Raises ExperimentError where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if not _taken(lock):
            raise ExperimentError(
                f"another process works in '{folder}': expected a run that nobody works on. "
                "Wait for its end, or stop it."
            )
        yield
    finally:
        os.close(lock)


def is_locked(folder: Path) -> bool:
    """Whether a process, perhaps this one, works in the folder."""
    if not (folder / LOCK).exists():
        return False
    lock = os.open(folder / LOCK, os.O_RDONLY)
    try:
        return not _taken(lock)
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
