"""Training that is stopped within an epoch and resumed in a new model ends as if uninterrupted."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.small_training import DEFAULTS

from experiments.checkpoints.callback import Checkpoints
from experiments.cli.signals import Interruption
from experiments.data import Splits, from_arrays
from experiments.loops import FitLoop, History, Loop, Position, TapeLoop, update_loss
from experiments.loops.evaluation import build_variables
from experiments.models.cnn import cnn
from experiments.runs import runtime

EPOCHS = 3
STEP = "experiments.loops.tape.train_step"
STOPS = (2, 11)
"""Number of steps of each start. With five steps per epoch, training stops in the first and in the last epoch."""


@pytest.fixture(scope="module")
def splits() -> Splits:
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (50, 16, 16, 3), np.uint8), generator.integers(0, 3, 50)
    return from_arrays((images[:37], labels[:37]), (images[37:], labels[37:]), batch_size=8, shuffle=True, seed=5)


class Stop(keras.callbacks.Callback):
    """Sets the signal during a step, as the signal handler does."""

    def __init__(self, interruption: Interruption, step: int | None) -> None:
        super().__init__()
        self._interruption, self._steps = interruption, step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if self._steps is not None:
            self._steps -= 1
            if self._steps == 0:
                self._interruption.signal = signal.SIGTERM


class Trained(NamedTuple):
    variables: list[np.ndarray]
    history: History


def train(make: Callable[[], keras.Model], loop: Loop, splits: Splits, folder: Path, stop: int | None) -> Trained:
    keras.utils.set_random_seed(3)
    model, interruption = make(), Interruption()
    options = replace(DEFAULTS, max_to_keep=2)
    checkpoints = Checkpoints(folder, options, model=model, interruption=interruption)
    build_variables(model, splits.validation)
    start = checkpoints.restore()
    history = loop(model, splits, epochs=EPOCHS, start=start, callbacks=[Stop(interruption, stop), checkpoints])
    return Trained([variable.numpy() for variable in (*model.variables, *model.optimizer.variables)], history)


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return model


def small() -> keras.Model:
    return cnn([4], 0.3, 0.9, l2=1e-3, input_shape=(16, 16, 3), num_classes=3)


def mirrored() -> keras.Model:
    strategy = runtime.configure(
        seed=3, precision="float32", deterministic="auto", threads=None, device="auto", strategy="mirrored"
    )
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        return compiled(small(), keras.optimizers.Adam(0.01, use_ema=True))


def bfloat16() -> keras.Model:
    keras.config.set_dtype_policy("mixed_bfloat16")
    return compiled(small(), keras.optimizers.Adam(0.01))


def float16() -> keras.Model:
    """Returns a model whose loss scale grows every third step, and halves if a gradient overflows."""
    keras.config.set_dtype_policy("mixed_float16")
    inner = keras.optimizers.Adam(0.01)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**14, dynamic_growth_steps=3)
    return compiled(small(), scaled)


def frozen() -> keras.Model:
    """Returns a model whose frozen layers keep their random initial weights."""
    model = small()
    for layer in model.layers[:-1]:
        layer.trainable = False
    return compiled(model, keras.optimizers.Adam(0.01))


class CustomStep(keras.Model):
    """A model with a variable that counts steps and scales the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.noise = keras.layers.GaussianNoise(0.1)
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        flat = keras.ops.reshape(keras.ops.cast(inputs, "float32") / 255, (-1, 16 * 16 * 3))
        return self.dense(self.noise(flat * (1 + self.seen), training=training))

    def train_step(self, batch: Any) -> Any:
        self.seen.assign_add(0.01)
        return super().train_step(batch)


def custom_step() -> keras.Model:
    return compiled(CustomStep(), keras.optimizers.Adam(0.01))


def custom_tape_step(model: keras.Model, batch: Any) -> dict[str, tf.Tensor]:
    x, y = batch
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = 2 * model.compute_loss(x=x, y=y, y_pred=logits, training=True)
    model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    update_loss(model, loss, tf.shape(x)[0])
    found: dict[str, tf.Tensor] = model.compute_metrics(x, y, logits)
    return found


FIT, TAPE = FitLoop(1, jit_compile=False), TapeLoop(STEP, 1, jit_compile=False)
CASES: dict[str, tuple[Callable[[], keras.Model], Loop]] = {
    "mirrored tape": (mirrored, TAPE),
    "float16 fit": (float16, FIT),
    "float16 tape": (float16, TAPE),
    "frozen layers": (frozen, FIT),
    "custom train_step of a model": (custom_step, FIT),
    "custom train_step of the loop": (bfloat16, TapeLoop(custom_tape_step, 1, jit_compile=False)),
}


LONG = ("mirrored tape", "float16 tape")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long) if case in LONG else case for case in CASES]
)
def test_stopped_and_resumed_training_equals_uninterrupted(tmp_path: Path, splits: Splits, case: str) -> None:
    make, loop = CASES[case]
    uninterrupted = train(make, loop, splits, tmp_path / "uninterrupted", None)
    for stop in STOPS:
        with pytest.raises(SystemExit):
            train(make, loop, splits, tmp_path / "stopped", stop)
    resumed = train(make, loop, splits, tmp_path / "stopped", None)
    assert resumed.history == uninterrupted.history
    for mine, theirs in zip(resumed.variables, uninterrupted.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_loss_scale_changes(splits: Splits) -> None:
    """Otherwise, comparing the loss scale would prove nothing."""
    model = float16()
    build_variables(model, splits.validation)
    FIT(model, splits, epochs=1, start=Position(), callbacks=[])
    assert float(model.optimizer.dynamic_scale.numpy()) != 2.0**14
