"""Transfer learning with any network of `keras.applications`, its preprocessing and a new head in one model."""

import keras

from experiments.errors import ModelError
from experiments.models.architectures import build_network, scales_width
from experiments.models.layers import PreprocessForArchitecture
from experiments.models.network_cache import Network, shared
from experiments.models.weights import file_state, load_network, load_weights


def application(
    architecture: str,
    weights: str | None,
    freeze: bool,
    dropout: float,
    include_top: bool,
    batch_norm_momentum: float | None,
    input_shape: tuple[int, ...],
    num_classes: int,
    alpha: float | None = None,
) -> keras.Model:
    """Builds a model: raw pixels 0..255 [batch, height, width, 1 or 3] -> float32 logits [batch, num_classes].

    `weights` is None, "imagenet", a weights or model file, or "runs:/ID" of an MLflow run that logged `model/`.
    `freeze` trains only the head. Batch normalization keeps its statistics.
    `include_top` uses the network's own head instead of global average pooling, dropout and one dense layer.
        `dropout` then has no effect.
    `batch_norm_momentum`: None keeps Keras's value. Training from scratch for a few hundred steps needs about 0.9:
        with Keras's 0.999, the moving statistics stay close to their initial values.
    `alpha` is the width multiplier of the MobileNets.
    Raises ModelError if the arguments do not fit each other.
    """
    _check(architecture, weights, include_top, input_shape, num_classes, alpha)
    image_size = (input_shape[0], input_shape[1])

    def build() -> Network:
        """Builds the network and loads its weights, unless their file may contain those of the head too."""
        network = build_network(
            architecture,
            imagenet=weights == "imagenet",
            include_top=include_top,
            alpha=alpha,
            image_size=image_size,
            num_classes=num_classes,
        )
        if batch_norm_momentum is not None:
            _set_batch_norm_momentum(network, architecture, batch_norm_momentum)
        if freeze:
            _freeze(network, include_top)
        return Network(network, weights in (None, "imagenet") or load_network(str(weights), network))

    if freeze and not include_top:
        key = (architecture, weights, file_state(weights), batch_norm_momentum, image_size, num_classes, alpha)
        network, loaded = shared(key, build)
    else:
        network, loaded = build()
    images = keras.Input(input_shape, name="images")
    features = network(PreprocessForArchitecture(architecture)(images), training=False if freeze else None)
    if include_top:
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(features)
    else:
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        # The order in which these layers are created affects the result: each draws its seed when it is created.
        dense, drop = keras.layers.Dense(num_classes, dtype="float32", name="logits"), keras.layers.Dropout(dropout)
        logits = dense(drop(pooled))
    model = keras.Model(images, logits, name=architecture.lower())
    if not loaded:
        load_weights(str(weights), network=network, model=model, architecture=architecture)
    return model


def _freeze(network: keras.Model, include_top: bool) -> None:
    """Freezes all layers. With `include_top`, only those before the global pooling, or before the last flattening."""
    network.trainable = include_top
    if include_top:
        kinds = keras.layers.GlobalAveragePooling2D, keras.layers.Flatten
        pooling, flattening = ([at for at, each in enumerate(network.layers) if isinstance(each, k)] for k in kinds)
        for layer in network.layers[: (pooling or flattening)[-1]]:
            layer.trainable = False


def _set_batch_norm_momentum(network: keras.Model, architecture: str, momentum: float) -> None:
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        raise ModelError(
            f"model.batch_norm_momentum={momentum}: {architecture} has no batch normalization. "
            "Set model.batch_norm_momentum=null."
        )
    for layer in layers:
        layer.momentum = momentum


def _check(
    architecture: str,
    weights: str | None,
    include_top: bool,
    input_shape: tuple[int, ...],
    num_classes: int,
    alpha: float | None,
) -> None:
    if alpha is not None and not scales_width(architecture):
        raise ModelError(
            f"model.alpha={alpha}: {architecture} has one width. Set model.alpha=null or choose MobileNet, "
            "MobileNetV2, MobileNetV3Small or MobileNetV3Large."
        )
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise ModelError(
            f"model.architecture={architecture} expects images of shape (height, width, 1 or 3), received "
            f"{tuple(input_shape)}. Choose other data, or set model=mlp."
        )
    if include_top and weights == "imagenet" and num_classes != 1000:
        raise ModelError(
            f"model.include_top=true with model.weights=imagenet expects data of 1000 classes, received {num_classes}. "
            "Set model.include_top=false for a new head, or model.weights=null."
        )
