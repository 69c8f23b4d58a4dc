"""Types of `loss=...`."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, fraction


@dataclass
class SparseCrossentropyLoss(Target):
    from_logits: bool = MISSING


@dataclass
class CrossentropyLoss(Target):
    from_logits: bool = MISSING
    label_smoothing: float = fraction()


SCHEMAS: dict[str, type] = {
    "sparse_categorical_crossentropy": SparseCrossentropyLoss,
    "categorical_crossentropy": CrossentropyLoss,
    "mean_squared_error": Target,
}
