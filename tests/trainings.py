"""Commands in processes of their own, forks of tests/killing/server.py; what trainings leave, compared bit for bit."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tests.killing.faults import Fault
from tests.killing.outcome import Outcome, Start

ROOT = Path(__file__).parents[1]


class Trainings:
    """To be closed when all are done. folder: for the jobs of tests/killing."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing.server", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # MLflow leaves the store of an earlier test of this process in the environment.
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        )

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
        with tempfile.TemporaryDirectory() as said:
            wanted = {"folder": str(folder), "door": door, "words": words, "said": said, "store": store}
            status = int(self._ask(wanted))
            stdout, stderr = ((Path(said) / name).read_text("utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(words, status, stdout, stderr)

    def disturbed(self, job: str, *faults: Fault) -> Outcome:
        """Starts a job of tests/killing until it is finished, each time with the next of the faults."""
        answer = self._ask({"job": job, "faults": faults})
        return Outcome([Start(*start) for start in answer["starts"]], answer["differences"])

    def _ask(self, wanted: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


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
