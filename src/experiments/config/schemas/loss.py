"""Types of `loss=...`."""

from dataclasses import dataclass

from experiments.config.fields import Target, described, fraction

_FROM_LOGITS = "The model returns logits. Set false only for a custom model that returns probabilities."


@dataclass
class SparseCrossentropyLoss(Target):
    """Cross-entropy between integer labels and logits."""

    from_logits: bool = described(_FROM_LOGITS)


@dataclass
class CrossentropyLoss(Target):
    """Cross-entropy with label smoothing; integer labels are converted to one-hot vectors."""

    from_logits: bool = described(_FROM_LOGITS)
    label_smoothing: float = fraction("Share of the target that is spread evenly over all classes.")


@dataclass
class MeanSquaredError(Target):
    """Mean squared difference between the probabilities and the one-hot labels."""


SCHEMAS: dict[str, type] = {
    "sparse_categorical_crossentropy": SparseCrossentropyLoss,
    "categorical_crossentropy": CrossentropyLoss,
    "mean_squared_error": MeanSquaredError,
}
