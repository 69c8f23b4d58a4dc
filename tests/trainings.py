"""Commands and calls in forks of tests/killing/server.py; what trainings leave, compared bit for bit."""

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
"""Until a process has written what a test waits for."""


class Trainings:
    """To be closed when all are done. server: see `fork_server`; folder: for the jobs of tests/killing."""

    def __init__(self, server: socket.socket, folder: Path) -> None:
        self._lines = server.makefile("rw", encoding="utf-8")
        # MLflow leaves the store of an earlier test of this process in the environment.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self._say({"folder": str(folder), "environment": environment})

    def train(self, folder: Path, *words: str, fault: Fault | None = None) -> int:
        """The exit status; -9 where it was killed."""
        folder.mkdir(parents=True, exist_ok=True)
        return int(self._ask({"folder": str(folder), "overrides": words, "fault": fault, "store": True}))

    def run(
        self, folder: Path, *words: str, door: str = "train", store: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """What `python -m experiments.DOOR WORDS` does in `folder`, without the seconds of its imports.

        store: an empty one is put where there is none, as making it takes seconds too.
        """
        with self.started(folder, *words, door=door, store=store) as command:
            status = command.wait()
            return subprocess.CompletedProcess(words, status, command.stdout, command.stderr)

    @contextmanager
    def started(
        self, folder: Path, *words: str, door: str = "train", store: bool = True, group: bool = False
    ) -> "Iterator[Started]":
        """The same while it goes on; killed where it still does at the end. group: of its own, see `Started.send`."""
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
        """A call of a test module's function in a process of its own, while it goes on.

        arguments: what JSON takes; terminal: the path of the one to read from and to write to.
        """
        name = f"{function.__module__}:{function.__qualname__}"
        wanted = {"function": name, "arguments": arguments, "environment": dict(environment)}
        with self._started(*[terminal] * 3 if terminal else (), **wanted) as command:
            yield command

    @contextmanager
    def _started(self, *streams: str, **wanted: Any) -> "Iterator[Started]":
        with tempfile.TemporaryDirectory() as said:
            written = [Path(said, "stdout"), Path(said, "stderr")]
            for path in written:
                path.touch()
            wanted["streams"] = streams or (os.devnull, *map(str, written))
            command = Started(self._ask, int(self._ask(wanted)), Path(said))
            try:
                yield command
            finally:
                if command.goes_on():
                    command.send(signal.SIGKILL)
                    command.wait()

    def disturbed(self, job: str, *faults: Fault) -> Outcome:
        """Starts a job of tests/killing until it is finished, each time with the next of the faults."""
        answer = self._ask({"job": job, "faults": faults})
        return Outcome([Start(*start) for start in answer["starts"]], answer["differences"])

    def _ask(self, wanted: dict[str, Any]) -> Any:
        self._say(wanted)
        return json.loads(self._lines.readline())

    def _say(self, wanted: dict[str, Any]) -> None:
        self._lines.write(json.dumps(wanted) + "\n")
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()


class Started:
    """A command in a process of its own."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], process: int, said: Path) -> None:
        self._ask, self._process, self._said = ask, process, said
        self._status: int | None = None

    def goes_on(self) -> bool:
        return self._ended(wait=False) is None

    def wait(self) -> int:
        """The exit status, or minus the number of the signal that ended it."""
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
        """Until it has written them."""
        until = time.monotonic() + LONGEST_SECONDS
        while words not in self.stdout + self.stderr:
            assert self.goes_on(), self.stdout + self.stderr
            assert time.monotonic() < until, self.stdout + self.stderr
            time.sleep(0.005)

    @property
    def stdout(self) -> str:
        return (self._said / "stdout").read_text("utf-8")

    @property
    def stderr(self) -> str:
        return (self._said / "stderr").read_text("utf-8")


def output(folder: Path) -> str:
    return (folder / "output.txt").read_text()


def variables(checkpoints: Path) -> dict[str, Any]:
    """Of the newest checkpoint, the counters of TensorFlow's own bookkeeping apart."""
    reader = tf.train.load_checkpoint(str(checkpoints))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(("save_counter", "_CHECK"))]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_bits(mine: Path, theirs: Path) -> None:
    one, other = variables(mine), variables(theirs)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
