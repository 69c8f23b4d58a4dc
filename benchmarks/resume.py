"""Time of a training that is killed 20 times, compared with plain Keras and BackupAndRestore, and cost of checkpoints.

    python benchmarks/resume.py [KILLS]

Both sides are killed after the same numbers of steps and started again until they finish; the peer is bare_resume.py.
Also prints the repeated steps, whether the final weights equal those of a training without kills, and the share of the
training thread's time that checkpoints take with default settings.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from bare_resume import STEPS
from measurement import DIGITS, HERE, show_ratio
from turns import composed, prepared
from turns import start as begin

from experiments.checkpoints.callback import CheckpointOptions, Checkpoints
from experiments.config.build import build
from experiments.loops import Position

KILLS = 20
EPOCHS_A_KILL = 2
STEPS_AN_EPOCH = 45
COST_SECONDS = 40
COMMON = ("progress=none", "logging.log_model=false", "resume=last")


class Survived(NamedTuple):
    """Result of a training with kills. `steps` counts the trained steps of all starts."""

    kills: int
    steps: int
    seconds: float
    weights: list[np.ndarray]


def main(kills: int) -> None:
    epochs = kills * EPOCHS_A_KILL
    # Each start must complete an epoch before it is killed, otherwise no side makes progress.
    schedule = [random.Random(number).randint(STEPS_AN_EPOCH + 5, 2 * STEPS_AN_EPOCH) for number in range(kills)]
    ours = [sys.executable, "-m", "experiments.train", *DIGITS, *COMMON, f"epochs={epochs}"]
    ours += ["checkpoint.every_epoch=true", "+callbacks.steps._target_=bare_resume.CountSteps"]
    bare = [sys.executable, str(HERE / "bare_resume.py"), str(epochs)]
    killed = {name: compared(name, command, schedule) for name, command in (("ours", ours), ("bare Keras", bare))}
    show_ratio(f"resume after {kills} kills, time", killed["ours"] / killed["bare Keras"], 1.5)
    show_ratio("checkpoints of a cnn, training thread", 1 + cost(), 1.01)


def compared(name: str, command: Sequence[str], schedule: Sequence[int]) -> float:
    """Returns the seconds of the killed training; prints the cost of the kills and their effect on the weights."""
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = (Path(folder) / each for each in ("undisturbed", "killed"))
        reference, result = survive(command, undisturbed, []), survive(command, killed, schedule)
    equal = all(np.array_equal(*pair) for pair in zip(reference.weights, result.weights, strict=True))
    print(
        f"  {name}: {result.kills} kills, {result.steps - reference.steps} steps repeated of {reference.steps}, "
        f"weights {'equal' if equal else 'not equal'}, {result.seconds:.0f} s instead of {reference.seconds:.0f} s",
        flush=True,
    )
    return result.seconds


def survive(command: Sequence[str], folder: Path, schedule: Sequence[int]) -> Survived:
    """Starts `command` until it finishes. `schedule` has the number of steps after which each start is killed."""
    folder.mkdir()
    began, kills = time.perf_counter(), 0
    for steps in itertools.chain(schedule, [None]):
        status = start(command, folder, steps)
        if status == 0:
            break
        if status != -signal.SIGKILL:
            sys.exit(f"{' '.join(command)} ended with status {status}: {(folder / 'output.txt').read_text()}")
        kills += 1
    return Survived(kills, done(folder), time.perf_counter() - began, weights(folder))


def start(command: Sequence[str], folder: Path, steps: int | None) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    before = done(folder)
    with (
        (folder / "output.txt").open("a") as output,
        subprocess.Popen(command, cwd=folder, env=kept | quiet, stdout=output, stderr=output) as training,
    ):
        while steps is not None and training.poll() is None:
            if done(folder) - before >= steps:
                training.kill()
            time.sleep(0.002)
    return training.returncode


def done(folder: Path) -> int:
    return (folder / STEPS).stat().st_size if (folder / STEPS).exists() else 0


def weights(folder: Path) -> list[np.ndarray]:
    """Returns the weights that the script has saved, or those of the run's last checkpoint."""
    if (folder / "weights.npz").exists():
        with np.load(folder / "weights.npz") as arrays:
            return [arrays[name] for name in arrays.files]
    (checkpoints,) = folder.glob("outputs/*/*/checkpoints")
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(checkpoints)))
    kinds = reader.get_variable_to_dtype_map()
    return [reader.get_tensor(name) for name in sorted(kinds) if kinds[name].is_floating]


class Stopwatch(keras.callbacks.Callback):
    """Measures the callback between two stopwatches: the first records its start, the second adds up its duration."""

    def __init__(self, first: "Stopwatch | None" = None) -> None:
        super().__init__()
        self._first = first
        self.began = self.seconds = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._note()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._note()

    def _note(self) -> None:
        self.began = time.perf_counter()
        if self._first is not None:
            self.seconds += self.began - self._first.began


class Until(keras.callbacks.Callback):
    """Ends the training after the epoch in which `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._last = time.perf_counter() + seconds

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.model.stop_training = time.perf_counter() > self._last


def cost() -> float:
    """Returns the share of training time that checkpoints take with default settings."""
    begin()
    cfg = composed(*DIGITS, "logging=none", "epochs=10000")
    model, splits = prepared(cfg)
    with tempfile.TemporaryDirectory() as folder:
        options = CheckpointOptions(metric=cfg.monitor.metric, mode=cfg.monitor.mode, **cfg.checkpoint)
        checkpoints = Checkpoints(Path(folder), options, model=model)
        before = Stopwatch()
        after = Stopwatch(before)
        began = time.perf_counter()
        callbacks = [before, checkpoints, after, Until(COST_SECONDS)]
        build(cfg.loop)(model, splits, epochs=cfg.epochs, start=Position(), callbacks=callbacks)
        seconds = time.perf_counter() - began
    print(f"  checkpoints: {after.seconds:.2f} s of {seconds:.1f} s")
    return after.seconds / seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
