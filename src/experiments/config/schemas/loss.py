"""Types of `loss=...`."""

from experiments.config.fields import Target, described, fraction, option

_FROM_LOGITS = "The model returns logits. Set false only for a custom model that returns probabilities."


@option("sparse_categorical_crossentropy")
class SparseCrossentropyLoss(Target):
    """Cross-entropy between integer labels and logits."""

    from_logits: bool = described(_FROM_LOGITS)


@option("categorical_crossentropy")
class CrossentropyLoss(Target):
    """Cross-entropy with label smoothing; integer labels are converted to one-hot vectors."""

    from_logits: bool = described(_FROM_LOGITS)
    label_smoothing: float = fraction("Share of the target that is spread evenly over all classes.")


@option("mean_squared_error")
class MeanSquaredError(Target):
    """Mean squared difference between the probabilities and the one-hot labels."""
