"""Types of the `callbacks` group: entries of one named dict."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, at_least, fraction, one_of


@dataclass
class EarlyStopping(Target):
    monitor: str = MISSING
    mode: str = one_of("min", "max")
    patience: int = at_least(0)
    min_delta: float = at_least(0)
    baseline: float | None = MISSING
    restore_best_weights: bool = MISSING
    start_from_epoch: int = at_least(0)


@dataclass
class ReduceOnPlateau(Target):
    monitor: str = MISSING
    mode: str = one_of("min", "max")
    factor: float = fraction()
    patience: int = at_least(0)
    min_delta: float = at_least(0)
    cooldown: int = at_least(0)
    min_lr: float = at_least(0)


SCHEMAS = {
    "early_stopping": EarlyStopping,
    "reduce_on_plateau": ReduceOnPlateau,
    "terminate_on_nan": Target,
}
