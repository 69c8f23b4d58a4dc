from typing import Any

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from experiments.errors import ConfigError
from experiments.schedules import constant, cosine, exponential, piecewise

EXPONENTIAL: dict[str, Any] = {"decay_rate": 0.1, "decay_steps": None, "staircase": False}
STAIRS: dict[str, Any] = {"boundaries": [0.5, 0.75], "factors": [0.1, 0.01]}


def values(schedule: Any, *steps: int) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_constant_without_warmup_is_a_float() -> None:
    assert constant(0.1, total_steps=100, warmup_steps=0) == 0.1


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (constant(1.0, 100, 10), (0, 5, 10, 99), [0, 0.5, 1, 1]),
        (cosine(1.0, 100, 0, final_fraction=0.1), (0, 50, 100), [1, 0.55, 0.1]),
        (cosine(1.0, 110, 10, final_fraction=0.0), (0, 5, 10, 60, 110, 200), [0, 0.5, 1, 0.5, 0, 0]),
        (exponential(1.0, 100, 0, **EXPONENTIAL), (0, 50, 100), [1, 0.1**0.5, 0.1]),
        (exponential(1.0, 110, 10, **EXPONENTIAL), (5, 10, 110), [0.5, 1, 0.1]),
        (exponential(1.0, 100, 0, decay_rate=0.5, decay_steps=10, staircase=True), (9, 10, 20), [1, 0.5, 0.25]),
        (piecewise(1.0, 100, 0, **STAIRS), (0, 49, 50, 74, 75, 99), [1, 1, 0.1, 0.1, 0.01, 0.01]),
        (piecewise(1.0, 100, 10, **STAIRS), (5, 10, 49, 50, 75), [0.5, 1, 1, 0.1, 0.01]),
        (piecewise(1.0, 1, 0, **STAIRS), (0,), [1]),
    ],
)
def test_values_at_key_steps(schedule: LearningRateSchedule, steps: tuple[int, ...], expected: list[float]) -> None:
    assert values(schedule, *steps) == pytest.approx(expected, abs=1e-6)


def test_warmup_equals_warmup_of_keras() -> None:
    expected = CosineDecay(0.0, 90, alpha=0.1, warmup_target=0.3, warmup_steps=10)
    custom = cosine(0.3, 100, 10, final_fraction=0.1)
    np.testing.assert_allclose(values(custom, *range(100)), values(expected, *range(100)), rtol=1e-5)


@pytest.mark.parametrize("schedule", [constant(0.1, 100, 10), exponential(0.1, 100, 10, **EXPONENTIAL)])
def test_schedule_survives_serialization_and_sets_rate_of_optimizer(schedule: LearningRateSchedule) -> None:
    optimizer = keras.optimizers.SGD(learning_rate=schedule)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    variable = keras.Variable(np.zeros(1, "float32"))
    copy.build([variable])
    copy.iterations.assign(5)
    assert float(copy.learning_rate) == pytest.approx(0.05)
    copy.apply([np.ones(1, "float32")])
    assert float(variable[0]) == pytest.approx(-0.05)


@pytest.mark.parametrize("warmup_steps", [100, 150])
def test_warmup_as_long_as_run_is_refused(warmup_steps: int) -> None:
    with pytest.raises(ConfigError) as error:
        cosine(0.1, 100, warmup_steps, final_fraction=0.0)
    assert str(error.value) == (
        f"schedule.warmup_steps={warmup_steps} leaves no steps after the warm-up: expected fewer than the run's 100 "
        "steps. Set schedule.warmup_steps below 100, or more epochs."
    )


def test_factors_must_match_the_boundaries() -> None:
    with pytest.raises(ConfigError) as error:
        piecewise(0.1, 100, 0, boundaries=[0.5, 0.75], factors=[0.1])
    assert str(error.value) == (
        "schedule.factors=[0.1] does not match schedule.boundaries=[0.5, 0.75]: expected one factor for each boundary, "
        "at least one. Set schedule.factors and schedule.boundaries to equal lengths."
    )


@pytest.mark.parametrize("boundaries", [[0.75, 0.5], [0.5, 1.0], [0.1, 0.5], [0.5, 0.5]])
def test_boundaries_must_increase_after_the_warmup(boundaries: list[float]) -> None:
    with pytest.raises(ConfigError) as error:
        piecewise(0.1, 100, 20, boundaries=boundaries, factors=[0.1, 0.01])
    assert str(error.value) == (
        f"schedule.boundaries={boundaries} are not in order: expected increasing fractions of all steps between 0.2, "
        "where the warm-up ends, and 1. Set schedule.boundaries."
    )
