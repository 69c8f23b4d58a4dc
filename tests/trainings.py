"""Trainings in processes of their own, see kill_server.py, and what they leave compared bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


class Trainings:
    """To be closed when all are done."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # MLflow leaves the store of an earlier test of this process in the environment.
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        )

    def train(self, folder: Path, *words: str, kill: dict[str, Any] | None = None) -> int:
        """The exit status; -9 where it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {"folder": str(folder), "overrides": words, "kill": kill}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

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
