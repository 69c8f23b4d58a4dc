"""Types of `metrics=[...]`; each option is one entry of a named dict, and its key names the metric."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import at_least, one_of


@dataclass
class Metric:
    _target_: str = MISSING


@dataclass
class TopK(Metric):
    k: int = at_least(1)


@dataclass
class Crossentropy(Metric):
    from_logits: bool = MISSING


@dataclass
class F1(Metric):
    average: str = one_of("macro", "micro", "weighted")


SCHEMAS: dict[str, type] = {
    "accuracy": Metric,
    "top_k": TopK,
    "sparse_categorical_crossentropy": Crossentropy,
    "f1_score": F1,
}
