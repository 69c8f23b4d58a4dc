"""Types of `callbacks=[...]`: Keras callbacks, each an entry of one named dict."""

from experiments.config.fields import Target, at_least, described, fraction, one_of, option

_MONITOR = "Metric that is compared."
_MODE = "Direction of an improvement."
_MIN_DELTA = "Smallest change of the metric that counts as an improvement."


@option("early_stopping")
class EarlyStopping(Target):
    """Stops training when the monitored metric no longer improves (keras.callbacks.EarlyStopping)."""

    monitor: str = described(_MONITOR)
    mode: str = one_of("min", "max", description=_MODE)
    patience: int = at_least(0, "Epochs without improvement before training stops.")
    min_delta: float = at_least(0, _MIN_DELTA)
    baseline: float | None = described("Value that the metric must pass; null sets no baseline.")
    restore_best_weights: bool = described(
        "Put the weights of the best epoch back when training stops. Evaluation and the saved model use the best "
        "weights in either case."
    )
    start_from_epoch: int = at_least(0, "Epochs before the first comparison.")


@option("reduce_on_plateau")
class ReduceOnPlateau(Target):
    """Lowers the learning rate when the monitored metric no longer improves (keras.callbacks.ReduceLROnPlateau).

    It needs schedule=constant and schedule.warmup_steps=0.
    """

    monitor: str = described(_MONITOR)
    mode: str = one_of("min", "max", description=_MODE)
    factor: float = fraction("Factor by which the learning rate is multiplied.")
    patience: int = at_least(0, "Epochs without improvement before the learning rate is lowered.")
    min_delta: float = at_least(0, _MIN_DELTA)
    cooldown: int = at_least(0, "Epochs after a reduction that are not compared.")
    min_lr: float = at_least(0, "Lowest learning rate.")


@option("terminate_on_nan")
class TerminateOnNan(Target):
    """Stops training when the loss is not a number (keras.callbacks.TerminateOnNaN).

    Training stops in this case without this callback too, see `monitor.max_loss`.
    """
