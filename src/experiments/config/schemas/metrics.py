"""Types of `metrics=[...]`; each option is an entry of one named dict, and its name is the name of the metric."""

from dataclasses import dataclass

from experiments.config.fields import Target, at_least, described, one_of


@dataclass
class Accuracy(Target):
    """Share of examples whose most probable class is the label."""


@dataclass
class TopK(Target):
    """Share of examples whose label is among the `k` most probable classes."""

    k: int = at_least(1, "Number of most probable classes that count as correct.")


@dataclass
class Crossentropy(Target):
    """Mean cross-entropy, without the regularization terms that `loss` contains."""

    from_logits: bool = described("The model returns logits.")


@dataclass
class F1(Target):
    """F1 score: the harmonic mean of precision and recall."""

    average: str = one_of("macro", "micro", "weighted", description="Average over classes, as in scikit-learn.")


SCHEMAS: dict[str, type] = {
    "accuracy": Accuracy,
    "top_k": TopK,
    "sparse_categorical_crossentropy": Crossentropy,
    "f1_score": F1,
}
