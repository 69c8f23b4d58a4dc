"""Types of `metrics=[...]`; each option is an entry of one named dict, and its name is the name of the metric."""

from experiments.config.fields import Target, at_least, described, one_of, option


@option("accuracy")
class Accuracy(Target):
    """Share of examples whose most probable class is the label."""


@option("top_k")
class TopK(Target):
    """Share of examples whose label is among the `k` most probable classes."""

    k: int = at_least(1, "Number of most probable classes that count as correct.")


@option("sparse_categorical_crossentropy")
class Crossentropy(Target):
    """Mean cross-entropy, without the regularization terms that `loss` contains."""

    from_logits: bool = described("The model returns logits.")


@option("f1_score")
class F1(Target):
    """F1 score: the harmonic mean of precision and recall."""

    average: str = one_of("macro", "micro", "weighted", description="Average over classes, as in scikit-learn.")
