"""Whether a process works on a run, as far as can be seen from this machine."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.run_lock import LOCK, is_locked

if TYPE_CHECKING:
    from mlflow.entities import Run

HEARTBEAT_SECONDS = 300
"""A run on another machine that was silent for so long is taken for dead."""


def signs_of_life(output_dir: Path) -> dict[str, str]:
    """Tags by which a run says which process works on it, and where."""
    process = {"host": socket.gethostname(), "pid": str(os.getpid()), "heartbeat": f"{time.time():.0f}"}
    return {**process, "output_dir": str(output_dir.absolute())}


def is_alive(run: "Run") -> bool:
    return is_worked_on(run.info.status, run.data.tags)


def is_elsewhere(run: "Run") -> bool:
    """Whether its heartbeat alone tells of its process, which works, or worked, on another machine."""
    tags = run.data.tags
    here = "output_dir" in tags and is_locked(Path(tags["output_dir"]))
    return not here and tags.get("host") != socket.gethostname()


def is_worked_on(status: str, tags: Mapping[str, str]) -> bool:
    """tags: `signs_of_life`."""
    folder = Path(tags["output_dir"]) if "output_dir" in tags else None
    if folder is not None and is_locked(folder):
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
