"""Types of `schedule=...`; the peak learning rate is the optimizer's, the number of steps the run's."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, above, at_least, fraction


@dataclass
class Schedule(Target):
    warmup_steps: int = at_least(0)


@dataclass
class Cosine(Schedule):
    final_fraction: float = fraction()


@dataclass
class Exponential(Schedule):
    decay_rate: float = above(0)
    decay_steps: int | None = at_least(1)
    staircase: bool = MISSING


@dataclass
class Piecewise(Schedule):
    boundaries: list[float] = MISSING
    factors: list[float] = MISSING


SCHEMAS: dict[str, type] = {
    "constant": Schedule,
    "cosine": Cosine,
    "exponential": Exponential,
    "piecewise": Piecewise,
}
