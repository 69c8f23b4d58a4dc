"""Weighted and balanced batches train equal weights in both loops, as with Keras's own `class_weight`."""

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from experiments.data import Splits, from_arrays
from experiments.loops import FitLoop, Position, TapeLoop
from experiments.loops.tape import train_step
from experiments.runs import runtime

LABELS = np.random.default_rng(1).choice(3, 37, p=[0.6, 0.3, 0.1])
LOOPS: dict[str, Any] = {
    "fit": FitLoop(steps_per_execution=1, jit_compile=False),
    "tape": TapeLoop(train_step=train_step, steps_per_execution=1, jit_compile=False),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "balanced weights": {"class_weight": "balanced"},
    "weights": {"class_weight": {0: 0.5, 2: 4}},
    "balanced sampling": {"sampling": "balanced"},
}


def splits(**options: Any) -> Splits:
    inputs = np.random.default_rng(0).integers(0, 256, (37, 6, 6, 1), np.uint8)
    return from_arrays((inputs, LABELS), (inputs[:7], LABELS[:7]), batch_size=8, shuffle=True, seed=4, **options)


def model() -> keras.Model:
    runtime.configure(seed=2, precision="float32", deterministic="auto", threads=None, strategy="none", device="auto")
    made = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return made


@cache  # Several tests compare with the same training.
def trained(loop: str, options: str) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    made = model()
    history = LOOPS[loop](made, splits(**OPTIONS[options]), epochs=2, start=Position(), callbacks=[])
    return [variable.numpy() for variable in made.variables], history


@pytest.mark.parametrize("options", ["balanced weights", "weights", "balanced sampling"])
def test_loops_agree_on_class_weights_and_sampling(options: str) -> None:
    (fit, fit_history), (tape, tape_history) = trained("fit", options), trained("tape", options)
    assert fit_history == tape_history
    assert "val_accuracy" in fit_history
    for left, right in zip(fit, tape, strict=True):
        np.testing.assert_array_equal(left, right)
    plain, _ = trained("tape", "plain")
    assert any(not np.array_equal(left, right) for left, right in zip(plain, tape, strict=True))


def test_class_weights_equal_those_of_keras() -> None:
    weighted, _ = trained("fit", "weights")
    made, plain = model(), splits().train
    for epoch in range(2):
        made.fit(plain.epoch(epoch), class_weight={0: 0.5, 1: 1.0, 2: 4.0}, shuffle=False, verbose=0)
    for left, right in zip(weighted, (variable.numpy() for variable in made.variables), strict=True):
        np.testing.assert_array_equal(left, right)
