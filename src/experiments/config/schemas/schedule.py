"""Types of `schedule=...`; the peak learning rate is the optimizer's, the number of steps is the run's."""

from experiments.config.fields import Target, above, at_least, described, fraction, option


@option("constant")
class Schedule(Target):
    """Keeps the learning rate at its peak."""

    warmup_steps: int = at_least(0, "Steps during which the learning rate rises from 0 to its peak.")


@option("cosine")
class Cosine(Schedule):
    """Lowers the learning rate along half a cosine."""

    final_fraction: float = fraction("Learning rate of the last step, as a fraction of the peak.")


@option("exponential")
class Exponential(Schedule):
    """Lowers the learning rate exponentially."""

    decay_rate: float = above(0, "Factor by which the learning rate is multiplied in `decay_steps` steps.")
    decay_steps: int | None = at_least(1, "Steps for one factor of `decay_rate`; null for all steps after the warm-up.")
    staircase: bool = described("Lower the learning rate in steps instead of continuously.")


@option("piecewise")
class Piecewise(Schedule):
    """Sets the learning rate to a fraction of its peak after each boundary."""

    boundaries: list[float] = described("Fractions of all steps of the run, ascending.")
    factors: list[float] = described("Learning rate after each boundary, as fractions of the peak.")
