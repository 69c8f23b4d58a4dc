"""Types of `model=...`."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, above, at_least, auto_or_bool, each_at_least, fraction


@dataclass
class ApplicationModel(Target):
    architecture: str = MISSING
    weights: str | None = MISSING
    freeze: bool = MISSING
    dropout: float = fraction()
    include_top: bool = MISSING
    batch_norm_momentum: float | None = fraction()
    cache_features: bool | str = auto_or_bool()


@dataclass
class ScalableApplicationModel(ApplicationModel):
    alpha: float | None = above(0)


@dataclass
class ConvolutionalModel(Target):
    filters: list[int] = each_at_least(1)  # noqa: RUF009 -- a field, made anew for each class
    dropout: float = fraction()
    batch_norm_momentum: float = fraction()
    l2: float = at_least(0)


@dataclass
class PerceptronModel(Target):
    hidden_sizes: list[int] = each_at_least(1)  # noqa: RUF009 -- a field, made anew for each class
    dropout: float = fraction()


SCHEMAS: dict[str, type] = {
    "mobilenetv2": ScalableApplicationModel,
    "vgg16": ApplicationModel,
    "resnet50": ApplicationModel,
    "efficientnetv2b0": ApplicationModel,
    "application": ScalableApplicationModel,
    "cnn": ConvolutionalModel,
    "mlp": PerceptronModel,
}
