"""Learning-rate schedules over the steps of a run. `learning_rate` is the peak, reached after the warm-up.

A step is one batch. The warm-up rises linearly from 0. The schedule after it counts steps from the end of the warm-up.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import keras
from keras.optimizers import schedules

from experiments.errors import ConfigError

LearningRate: TypeAlias = float | schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="experiments")
class LinearWarmup(schedules.LearningRateSchedule):
    """Rises from 0 to `learning_rate` over `warmup_steps`, then follows `after`, or stays constant if it is None."""

    def __init__(
        self, learning_rate: float, warmup_steps: int, after: schedules.LearningRateSchedule | None = None
    ) -> None:
        super().__init__()
        self.learning_rate, self.warmup_steps, self.after = learning_rate, warmup_steps, after

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rising = self.learning_rate * step / self.warmup_steps
        following = self.learning_rate if self.after is None else self.after(step - self.warmup_steps)
        return keras.ops.where(step < self.warmup_steps, rising, following)

    def get_config(self) -> dict[str, Any]:
        after = None if self.after is None else keras.saving.serialize_keras_object(self.after)
        return {"learning_rate": self.learning_rate, "warmup_steps": self.warmup_steps, "after": after}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        after = config["after"]
        return cls(**{**config, "after": None if after is None else keras.saving.deserialize_keras_object(after)})


def constant(learning_rate: float, total_steps: int, warmup_steps: int) -> LearningRate:
    """Returns a plain float if there is no warm-up, so that callbacks such as ReduceLROnPlateau can change it."""
    _check_warmup(warmup_steps, total_steps)
    return LinearWarmup(learning_rate, warmup_steps) if warmup_steps else learning_rate


def cosine(learning_rate: float, total_steps: int, warmup_steps: int, final_fraction: float) -> LearningRate:
    """Returns a half cosine that falls from the peak to `final_fraction` of it at the last step."""
    _check_warmup(warmup_steps, total_steps)
    after = schedules.CosineDecay(learning_rate, total_steps - warmup_steps, alpha=final_fraction)
    return _warmed_up(learning_rate, warmup_steps, after)


def exponential(
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    decay_rate: float,
    decay_steps: int | None,
    staircase: bool,
) -> LearningRate:
    """Returns a rate that is multiplied by `decay_rate` over every `decay_steps` (None: all steps after the warm-up).

    With `staircase`, the rate drops only at the end of each `decay_steps`, instead of a little at every step.
    """
    _check_warmup(warmup_steps, total_steps)
    length = total_steps - warmup_steps if decay_steps is None else decay_steps
    after = schedules.ExponentialDecay(learning_rate, length, decay_rate, staircase=staircase)
    return _warmed_up(learning_rate, warmup_steps, after)


def piecewise(
    learning_rate: float, total_steps: int, warmup_steps: int, boundaries: Sequence[float], factors: Sequence[float]
) -> LearningRate:
    """Returns the peak until the first boundary, then the peak times the factor of the last boundary passed.

    `boundaries` are increasing fractions of all steps, including the warm-up.
    """
    _check_warmup(warmup_steps, total_steps)
    _check_boundaries(boundaries, factors, warmup_steps / total_steps)
    # Keras changes the value after the boundary step. Subtracting 1 changes it at the boundary step.
    steps = [max(round(fraction * total_steps), 1) - warmup_steps - 1 for fraction in boundaries]
    values = [learning_rate * factor for factor in (1.0, *factors)]
    return _warmed_up(learning_rate, warmup_steps, schedules.PiecewiseConstantDecay(steps, values))


def _warmed_up(
    learning_rate: float, warmup_steps: int, after: schedules.LearningRateSchedule
) -> schedules.LearningRateSchedule:
    return LinearWarmup(learning_rate, warmup_steps, after) if warmup_steps else after


def _check_warmup(warmup_steps: int, total_steps: int) -> None:
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(
            f"schedule.warmup_steps={warmup_steps} leaves no steps after the warm-up: expected fewer than the run's "
            f"{total_steps} steps. Set schedule.warmup_steps below {total_steps}, or more epochs."
        )


def _check_boundaries(boundaries: Sequence[float], factors: Sequence[float], warmup_fraction: float) -> None:
    if len(boundaries) != len(factors) or not boundaries:
        raise ConfigError(
            f"schedule.factors={list(factors)} does not match schedule.boundaries={list(boundaries)}: expected one "
            "factor for each boundary, at least one. Set schedule.factors and schedule.boundaries to equal lengths."
        )
    edges = [warmup_fraction, *boundaries, 1.0]
    if any(late <= early for early, late in pairwise(edges)):
        raise ConfigError(
            f"schedule.boundaries={list(boundaries)} are not in order: expected increasing fractions of all steps "
            f"between {warmup_fraction:g}, where the warm-up ends, and 1. Set schedule.boundaries."
        )
