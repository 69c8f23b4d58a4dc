"""Small model of a few hundred weights, trained with the tape loop on random images, and its checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments.checkpoints.callback import CheckpointOptions, Checkpoints
from experiments.data import Splits, from_arrays
from experiments.loops import Position, TapeLoop
from experiments.loops.evaluation import build_variables
from experiments.models.cnn import cnn
from experiments.models.mlp import mlp

STEP = "experiments.loops.tape.train_step"
DEFAULTS = CheckpointOptions(
    metric="val_loss",
    mode="min",
    max_to_keep=3,
    name="ckpt",
    every_epoch=True,
    every_n_steps=None,
    every_n_minutes=None,
)


def small_splits() -> Splits:
    """Splits with six steps per epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (31, 6, 6, 1), np.uint8), rng.integers(0, 3, 31)
    return from_arrays((x[:22], y[:22]), (x[22:], y[22:]), batch_size=4, shuffle=True, seed=5)


def compiled(splits: Splits, hidden: int = 8) -> keras.Model:
    model = mlp([hidden], 0.2, input_shape=(6, 6, 1), num_classes=3)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01, use_ema=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    build_variables(model, splits.validation)
    return model


def trained(folder: Path, splits: Splits, epochs: int = 2, **options: Any) -> tuple[keras.Model, Checkpoints]:
    steps_per_execution = options.pop("steps_per_execution", 1)
    model = compiled(splits)
    checkpoints = Checkpoints(folder, replace(DEFAULTS, **options), model=model)
    loop = TapeLoop(STEP, steps_per_execution, jit_compile=False)
    loop(model, splits, epochs=epochs, start=Position(), callbacks=[checkpoints])
    return model, checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.index"))


class Scripted(keras.callbacks.Callback):
    """Replaces the validation loss with a given value before `Checkpoints` reads it."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self._values = values
        self.weights: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        logs["val_loss"] = self._values[epoch]
        self.weights.append(self.model.get_weights())


def scripted(folder: Path, splits: Splits, values: list[float], mode: str = "min") -> tuple[Checkpoints, Scripted, Any]:
    """Trains one epoch per value. Skips the epochs that a checkpoint in `folder` contains."""
    model, script = compiled(splits), Scripted(values)
    checkpoints = Checkpoints(folder, replace(DEFAULTS, mode=mode), model=model)
    loop = TapeLoop(STEP, 1, jit_compile=False)
    loop(model, splits, epochs=len(values), start=checkpoints.restore(), callbacks=[script, checkpoints])
    return checkpoints, script, model


def assert_equal(mine: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def again(folder: Path, model: keras.Model) -> tuple[Checkpoints, Position]:
    checkpoints = Checkpoints(folder, DEFAULTS, model=model)
    return checkpoints, checkpoints.restore()


def damage(path: Path) -> None:
    """Flips one bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def own_cnn(**options: Any) -> keras.Model:
    """Custom model: a target outside of the package."""
    return cnn(**options)
