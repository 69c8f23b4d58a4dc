"""Types of `loss=...`."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import fraction


@dataclass
class SparseCrossentropyLoss:
    _target_: str = MISSING
    from_logits: bool = MISSING


@dataclass
class CrossentropyLoss:
    _target_: str = MISSING
    from_logits: bool = MISSING
    label_smoothing: float = fraction()


@dataclass
class MeanSquaredErrorLoss:
    _target_: str = MISSING


SCHEMAS: dict[str, type] = {
    "sparse_categorical_crossentropy": SparseCrossentropyLoss,
    "categorical_crossentropy": CrossentropyLoss,
    "mean_squared_error": MeanSquaredErrorLoss,
}
