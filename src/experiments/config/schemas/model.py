"""Types of `model=...`."""

from experiments.config.fields import Target, above, at_least, auto_or_bool, described, each_at_least, fraction, option

_DROPOUT = "Dropout rate before the last layer; after each hidden layer of `mlp`. Without effect with include_top=true."
_WEIGHTS = (
    "Initial weights: a file saved by Keras, runs:/ID or models:/NAME@ALIAS for the best checkpoint of a run, "
    "imagenet for a network of keras.applications, or null."
)
_BATCH_NORM_MOMENTUM = (
    "Momentum of the moving statistics of batch normalization; null for the default of Keras (not for cnn)."
)


@option("vgg16", "resnet50", "efficientnetv2b0")
class ApplicationModel(Target):
    """Network of keras.applications, named by `model.architecture`."""

    architecture: str = described("Name of the network in keras.applications, such as DenseNet121.")
    weights: str | None = described(_WEIGHTS)
    freeze: bool = described("Train the head only; frozen batch normalization keeps its statistics.")
    dropout: float = fraction(_DROPOUT)
    include_top: bool = described(
        "Keep the published classification head instead of pooling, dropout and a dense layer."
    )
    batch_norm_momentum: float | None = fraction(_BATCH_NORM_MOMENTUM)
    cache_features: bool | str = auto_or_bool(
        "Compute the outputs of frozen layers once and train the head on them. auto does so if the results stay "
        "bit for bit identical; true also if the last bits may change, and fails if it is impossible; false never does."
    )


@option("mobilenetv2", "application")
class ScalableApplicationModel(ApplicationModel):
    """Network of keras.applications, named by `model.architecture`."""

    alpha: float | None = above(0, "Width multiplier of the MobileNets; null for the default of Keras.")


@option("cnn")
class ConvolutionalModel(Target):
    """Blocks of convolution, batch normalization, ReLU and pooling, and one dense layer."""

    weights: str | None = described(_WEIGHTS)
    filters: list[int] = each_at_least(1, "Filters of each block.")
    dropout: float = fraction(_DROPOUT)
    batch_norm_momentum: float = fraction(_BATCH_NORM_MOMENTUM)
    l2: float = at_least(0, "Weight of the squared convolution kernels in the loss.")


@option("mlp")
class PerceptronModel(Target):
    """Dense layers with ReLU and dropout."""

    weights: str | None = described(_WEIGHTS)
    hidden_sizes: list[int] = each_at_least(1, "Units of each hidden layer; [] makes a linear classifier.")
    dropout: float = fraction(_DROPOUT)
