"""Runs commands and functions in forks of tests/killing/server.py, and compares checkpoints bit for bit."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf
from tests.killing.faults import Fault
from tests.killing.outcome import Outcome, Start

LONGEST_SECONDS = 60
"""Time limit until a process has written the text that a test waits for."""


class Trainings:
    """Client of the server of `fork_server`. `folder` contains the jobs of tests/killing."""

    def __init__(self, server: socket.socket, folder: Path) -> None:
        self._lines = server.makefile("rw", encoding="utf-8")
        # MLflow has stored the tracking URI of earlier tests of this process in the environment.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self._write({"folder": str(folder), "environment": environment})

    def train(self, folder: Path, *words: str, fault: Fault | None = None) -> int:
        """Trains in `folder` and returns the exit status, -9 if the process was killed."""
        folder.mkdir(parents=True, exist_ok=True)
        return int(self._ask({"folder": str(folder), "overrides": words, "fault": fault, "store": True}))

    def run(
        self, folder: Path, *words: str, door: str = "train", store: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python -m experiments.DOOR WORDS` in `folder`, in a fork that has already imported TensorFlow.

        store: an empty one is put where there is none, as making it takes seconds too.
        """
        with self.started(folder, *words, door=door, store=store) as command:
            status = command.wait()
            return subprocess.CompletedProcess(words, status, command.stdout, command.stderr)

    @contextmanager
    def started(
        self, folder: Path, *words: str, door: str = "train", store: bool = True, group: bool = False
    ) -> "Iterator[Started]":
        """Starts a command; kills it at the end of the block if it still runs. `group`: in a new process group."""
        with self._started(folder=str(folder), door=door, words=words, store=store, group=group) as command:
            yield command

    @contextmanager
    def calling(
        self,
        function: Callable[..., object],
        *arguments: Any,
        terminal: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> "Iterator[Started]":
        """Calls a function of a test module in a new process; kills it at the end of the block if it is still running.

        `arguments` must be valid JSON. `terminal` is the path of a terminal for standard input, output and error.
        """
        name = f"{function.__module__}:{function.__qualname__}"
        request = {"function": name, "arguments": arguments, "environment": dict(environment)}
        with self._started(*[terminal] * 3 if terminal else (), **request) as command:
            yield command

    @contextmanager
    def _started(self, *streams: str, **request: Any) -> "Iterator[Started]":
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, "stdout"), Path(folder, "stderr")]
            for path in files:
                path.touch()
            request["streams"] = streams or (os.devnull, *map(str, files))
            command = Started(self._ask, int(self._ask(request)), Path(folder))
            try:
                yield command
            finally:
                if command.goes_on():
                    command.send(signal.SIGKILL)
                    command.wait()

    def disturbed(self, job: str, *faults: Fault) -> Outcome:
        """Starts a job of tests/killing until it is finished, each time with the next fault."""
        answer = self._ask({"job": job, "faults": faults})
        return Outcome([Start(*start) for start in answer["starts"]], answer["differences"])

    def _ask(self, request: dict[str, Any]) -> Any:
        self._write(request)
        return json.loads(self._lines.readline())

    def _write(self, request: dict[str, Any]) -> None:
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()


class Started:
    """A command in its own process."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], process: int, folder: Path) -> None:
        self._ask, self._process, self._folder = ask, process, folder
        self._status: int | None = None

    def goes_on(self) -> bool:
        return self._ended(wait=False) is None

    def wait(self) -> int:
        """Returns the exit status, or minus the number of the signal that ended the process."""
        status = self._ended(wait=True)
        assert status is not None
        return status

    def _ended(self, *, wait: bool) -> int | None:
        if self._status is None:
            self._status = self._ask({"process": self._process, "wait": wait})
        return self._status

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self._process, number)

    def wait_for(self, words: str) -> None:
        """Waits until the process has written `words`."""
        until = time.monotonic() + LONGEST_SECONDS
        while words not in self.stdout + self.stderr:
            assert self.goes_on(), self.stdout + self.stderr
            assert time.monotonic() < until, self.stdout + self.stderr
            time.sleep(0.005)

    @property
    def stdout(self) -> str:
        return (self._folder / "stdout").read_text("utf-8")

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text("utf-8")


def output(folder: Path) -> str:
    return (folder / "output.txt").read_text()


def variables(checkpoints: Path) -> dict[str, Any]:
    """Returns the variables of the latest checkpoint, without TensorFlow's save counter and object graph."""
    reader = tf.train.load_checkpoint(str(checkpoints))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(("save_counter", "_CHECK"))]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_bits(mine: Path, theirs: Path) -> None:
    one, other = variables(mine), variables(theirs)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
