"""Types of `metrics=[...]`; each option is one entry of a named dict, and its key names the metric."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, at_least, one_of


@dataclass
class TopK(Target):
    k: int = at_least(1)


@dataclass
class Crossentropy(Target):
    from_logits: bool = MISSING


@dataclass
class F1(Target):
    average: str = one_of("macro", "micro", "weighted")


SCHEMAS: dict[str, type] = {
    "accuracy": Target,
    "top_k": TopK,
    "sparse_categorical_crossentropy": Crossentropy,
    "f1_score": F1,
}
