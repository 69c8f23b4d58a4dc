"""Types of `optimizer=...`: the keyword arguments of Keras's optimizers."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, above, at_least, fraction


@dataclass
class Optimizer(Target):
    """What every Keras optimizer takes."""

    learning_rate: float = above(0)
    weight_decay: float | None = at_least(0)
    clipnorm: float | None = above(0)
    clipvalue: float | None = above(0)
    global_clipnorm: float | None = above(0)
    use_ema: bool = MISSING
    ema_momentum: float = fraction()
    ema_overwrite_frequency: int | None = at_least(1)
    loss_scale_factor: float | None = above(0)
    gradient_accumulation_steps: int | None = at_least(2)


@dataclass
class SGD(Optimizer):
    momentum: float = fraction()
    nesterov: bool = MISSING


@dataclass
class Adam(Optimizer):
    beta_1: float = fraction()
    beta_2: float = fraction()
    epsilon: float = above(0)
    amsgrad: bool = MISSING


@dataclass
class RMSprop(Optimizer):
    rho: float = fraction()
    momentum: float = fraction()
    epsilon: float = above(0)
    centered: bool = MISSING


@dataclass
class Lion(Optimizer):
    beta_1: float = fraction()
    beta_2: float = fraction()


SCHEMAS: dict[str, type] = {"sgd": SGD, "adam": Adam, "adamw": Adam, "rmsprop": RMSprop, "lion": Lion}
