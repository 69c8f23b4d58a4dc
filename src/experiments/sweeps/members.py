"""Processes of a sweep on any machine, as its study lists them: the sweep process and the workers."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
from optuna import Study

from experiments.errors import ExperimentError
from experiments.tracking.journal import Unavailable
from experiments.tracking.liveness import (
    BEAT_SECONDS,
    CLOCK_SECONDS,
    HEARTBEAT_SECONDS,
    LOOK_SECONDS,
    Heartbeat,
    heartbeat,
    is_here,
    is_worked_on,
    signs_of_life,
    silence,
)
from experiments.tracking.patience import LEAVING_SECONDS, briefly, most_patience, waiting

SWEEP, WORKER = "sweep process", "worker"
"""First words of the user attributes of the study that contain the signs of life of a process."""
STATE, OPENING, OPEN, CLOSED = "state", "opening", "open", "closed"
"""User attribute of the study, and its values: the parent run is being opened, jobs can be taken, and no longer."""
PARENT = "parent"
"""User attribute of the study: the id of the parent run, or None without tracking."""
WAIT_SECONDS = 0.1
logger = logging.getLogger(__name__)


class Members:
    """Members of the sweep with this study. Each process that joins or watches them has its own instance."""

    def __init__(self, study: Study, folder: Path) -> None:
        self._study, self._folder = study, folder
        self._looked = self._watching_since = -math.inf
        self._lock, self._closed = Lock(), False
        self.beats: list[Callable[[], None]] = []
        """Called with each heartbeat of this process."""

    @contextmanager
    def joined(self, role: str) -> Iterator[str]:
        """Lists this process during the block, with heartbeats. Yields the name by which it is listed."""
        name = f"{role} {os.getpid()} on {socket.gethostname()}"

        def beat() -> None:
            self._inform(name, signs_of_life(self._folder), 0)  # the next heartbeat comes soon
            for other in self.beats:
                other()

        self._study.set_user_attr(name, signs_of_life(self._folder))
        pulse = Heartbeat(beat)
        pulse.start()
        try:
            yield name
        finally:
            pulse.stop()
            pulse.join(LEAVING_SECONDS)  # so that no heartbeat follows the end
            briefly(lambda: self._inform(name, None, LEAVING_SECONDS))

    def _inform(self, name: str, value: Any, seconds: float) -> None:
        """Writes a user attribute of the study, or logs that this failed for `seconds`."""
        try:
            with waiting(most_patience, seconds):
                self._study.set_user_attr(name, value)
        except (KeyError, FileNotFoundError):  # the study was deleted, as its parent run could not be opened
            return
        except Exception as failure:  # each database has errors of its own
            level = logging.WARNING if seconds else logging.DEBUG
            logger.log(level, "The queue of the sweep was not informed that this process runs or ends: %s", failure)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Lists this process as the sweep process. Raises ExperimentError if others work on the sweep.

        A process is listed before it reads the list, so that of two processes at most one continues.
        """
        with self.joined(SWEEP) as own:
            self._require_none_but(own)
            self._study.set_user_attr(STATE, OPENING)
            yield

    def living(self, *roles: str) -> dict[str, Mapping[str, str]]:
        """Returns the signs of life of the processes that run, by name. Without `roles`, of all."""
        listed = self._study.user_attrs.items()
        before, self._looked = self._looked, time.monotonic()
        if self._looked - before > BEAT_SECONDS:  # The database was unavailable, or this process was suspended.
            self._watching_since = self._looked
        found = {name: signs for name, signs in listed if name.startswith(roles or (SWEEP, WORKER))}
        return {name: signs for name, signs in found.items() if isinstance(signs, dict) and self._runs(name, signs)}

    def _runs(self, name: str, signs: Mapping[str, str]) -> bool:
        """Returns True on another machine until no heartbeat has come for HEARTBEAT_SECONDS of this machine's clock."""
        if is_here(signs):
            return is_worked_on("RUNNING", {key: str(signs.get(key)) for key in ("host", "pid", "heartbeat")})
        sign = {"heartbeat": str(signs.get("heartbeat"))}
        silent = min(silence(name, sign), time.monotonic() - self._watching_since)
        return silent < HEARTBEAT_SECONDS and time.time() - heartbeat(sign) < CLOCK_SECONDS

    def _require_none_but(self, own: str) -> None:
        """Raises ExperimentError if other processes work on the sweep, such as workers whose sweep process has ended.

        Waits for the next heartbeat of processes on other machines, or until they are considered dead.
        """
        first = others = {name: signs for name, signs in self.living().items() if name != own}
        if others and not any(map(is_here, others.values())):
            logger.info("Waiting up to %d s for a sign of life of: %s", HEARTBEAT_SECONDS, ", ".join(others))
        while others and others == first and not any(map(is_here, others.values())):
            time.sleep(LOOK_SECONDS)
            others = {name: signs for name, signs in self.living().items() if name != own}
        if others:
            numbers = " ".join(sorted(signs["pid"] for signs in others.values() if is_here(signs)))
            stop = f", or stop them (kill {numbers})" if numbers else ""
            raise ExperimentError(
                f"other processes work on the sweep in {self._folder}: expected none, received "
                f"{', '.join(sorted(others))}. Workers end when no job waits: try again then{stop}."
            )

    def wait_until_opened(self) -> bool:
        """Waits for the parent run. Returns False if the sweep is closed, or if its process was killed before."""
        while self.state() == OPENING and self.living(SWEEP):
            time.sleep(WAIT_SECONDS)
        return self.is_open()

    def is_open(self) -> bool:
        """Returns True until `close` is called, also after the sweep process was killed: its workers continue."""
        return self.state() == OPEN

    def state(self) -> str:
        return str(self._study.user_attrs.get(STATE))

    def open(self) -> None:
        """Lets workers take jobs, unless `close` was called."""
        with self._lock:
            if not self._closed:
                self._study.set_user_attr(STATE, OPEN)

    def close(self, seconds: float = LEAVING_SECONDS) -> None:
        """Prevents workers from taking further jobs. Waits up to `seconds` for the database."""
        with self._lock:
            self._closed = True
            self._inform(STATE, CLOSED, seconds)

    def wait_for_children(self, seconds: float) -> None:
        """Waits until no worker that this process has started is known to be at work, for at most `seconds`."""
        children = {str(child.pid) for child in psutil.Process().children(recursive=True)}
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with suppress(Unavailable), waiting(most_patience, 0):
                if not any(is_here(signs) and signs["pid"] in children for signs in self.living(WORKER).values()):
                    return
            time.sleep(WAIT_SECONDS)
