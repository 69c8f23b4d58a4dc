"""Types of `optimizer=...`: the keyword arguments of Keras's optimizers."""

from dataclasses import dataclass

from experiments.config.fields import Target, above, at_least, described, fraction, option

_MOMENTUM = "Share of the previous update in the next one; 0 for none."
_BETA_1 = "Decay rate of the average of gradients; share of that average in an update for lion."
_BETA_2 = "Decay rate of the average of squared gradients; of gradients for lion."
_RHO = "Decay rate of the average of squared gradients."
_EPSILON = "Small constant added to the denominator."


@dataclass
class Optimizer(Target):
    """Arguments of every Keras optimizer."""

    learning_rate: float = above(0, "Peak learning rate, whatever the schedule.")
    weight_decay: float | None = at_least(
        0,
        "Share of each weight that an update subtracts, multiplied by the learning rate; null for none (0 for adamw).",
    )
    clipnorm: float | None = above(0, "Largest norm of the gradient of one variable; null for no limit.")
    clipvalue: float | None = above(0, "Largest absolute value of an element of a gradient; null for no limit.")
    global_clipnorm: float | None = above(0, "Largest norm of all gradients together; null for no limit.")
    use_ema: bool = described("Keep a moving average of the weights, and validate, test and save it instead of these.")
    ema_momentum: float = fraction("Momentum of the moving average.")
    ema_overwrite_frequency: int | None = at_least(
        1, "Steps after which the average replaces the weights in training too; null for never."
    )
    loss_scale_factor: float | None = above(
        0, "Constant by which the loss is multiplied and the gradients are divided; null for none."
    )
    gradient_accumulation_steps: int | None = at_least(2, "Batches per update of the weights; null for one.")


@option("sgd")
class SGD(Optimizer):
    """Gradient descent with momentum (keras.optimizers.SGD)."""

    momentum: float = fraction(_MOMENTUM)
    nesterov: bool = described("Use Nesterov momentum.")


@option("adam")
class Adam(Optimizer):
    """Adam (keras.optimizers.Adam)."""

    beta_1: float = fraction(_BETA_1)
    beta_2: float = fraction(_BETA_2)
    epsilon: float = above(0, _EPSILON)
    amsgrad: bool = described("Use the AMSGrad variant.")


@option("adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay (keras.optimizers.AdamW)."""


@option("rmsprop")
class RMSprop(Optimizer):
    """RMSprop (keras.optimizers.RMSprop)."""

    rho: float = fraction(_RHO)
    momentum: float = fraction(_MOMENTUM)
    epsilon: float = above(0, _EPSILON)
    centered: bool = described("Normalize gradients by their estimated variance.")


@option("lion")
class Lion(Optimizer):
    """Lion (keras.optimizers.Lion)."""

    beta_1: float = fraction(_BETA_1)
    beta_2: float = fraction(_BETA_2)
