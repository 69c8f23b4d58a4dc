from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.errors import ModelError

Build = Callable[..., keras.Model]
LABELS = np.array([0, 1, 1, 1])


def network_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def train_one_step(model: keras.Model, images: np.ndarray) -> None:
    # Eager execution, because tracing takes longer than the single step.
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    model.train_on_batch(images, LABELS)


def test_raw_pixels_become_logits(mobilenet: keras.Model, images: np.ndarray) -> None:
    logits = mobilenet(images)
    assert logits.shape == (4, 2)
    assert logits.dtype == "float32"
    assert not np.allclose(np.sum(logits, axis=-1), 1)


def test_images_with_one_channel_are_accepted(build: Build, mobilenet: keras.Model, images: np.ndarray) -> None:
    gray = build(input_shape=(32, 32, 1))
    gray.set_weights(mobilenet.get_weights())
    np.testing.assert_array_equal(gray(images[..., :1]), mobilenet(images[..., [0, 0, 0]]))


@pytest.mark.parametrize("include_top", [False, True])
def test_freeze_trains_only_the_head(build: Build, images: np.ndarray, include_top: bool) -> None:
    model = build(freeze=True, include_top=include_top, dropout=0.2)
    head = {weight.path for weight in model.trainable_weights}
    assert head == ({"predictions/kernel", "predictions/bias"} if include_top else {"logits/kernel", "logits/bias"})
    before = model.get_weights()  # Copies, because weight.numpy() may be a view.
    train_one_step(model, images)
    changed = {w.path for w, old in zip(model.weights, before, strict=True) if not np.array_equal(w, old)}
    assert changed
    assert changed <= head


def test_unfrozen_network_trains_weights_and_statistics(build: Build, images: np.ndarray) -> None:
    model = build(batch_norm_momentum=0.9)
    before = network_of(model).get_weights()
    train_one_step(model, images)
    after = network_of(model).get_weights()
    assert sum(np.array_equal(old, new) for old, new in zip(before, after, strict=True)) < len(before) / 10


@pytest.mark.parametrize(("momentum", "expected"), [(None, {0.999}), (0.9, {0.9})])
def test_batch_norm_momentum_reaches_every_layer(build: Build, momentum: float | None, expected: set[float]) -> None:
    layers = network_of(build(batch_norm_momentum=momentum)).layers
    assert {layer.momentum for layer in layers if isinstance(layer, keras.layers.BatchNormalization)} == expected


def test_include_top_uses_number_of_classes_of_data(build: Build, images: np.ndarray) -> None:
    model = build(include_top=True, num_classes=7)
    assert model(images).shape == (4, 7)
    assert network_of(model).layers[-1].activation is keras.activations.linear


def test_head_is_float32_under_mixed_precision(build: Build, images: np.ndarray, mixed_bfloat16: None) -> None:
    for include_top in (False, True):
        assert build(include_top=include_top)(images).dtype == "float32"


def test_model_builds_under_mirrored_strategy(build: Build, images: np.ndarray) -> None:
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        assert build()(images).shape == (4, 2)


@pytest.mark.parametrize("wrapped", [False, True], ids=["logits", "served"])
def test_saved_model_returns_same_outputs(
    mobilenet: keras.Model, images: np.ndarray, tmp_path: Path, wrapped: bool
) -> None:
    model = mobilenet
    if wrapped:
        pixels = keras.Input((32, 32, 3), dtype="uint8")
        model = keras.Model(pixels, keras.layers.Softmax()(mobilenet(pixels)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "VGG16"},
            "model.alpha=0.35: VGG16 has one width. Set model.alpha=null or choose MobileNet, MobileNetV2, "
            "MobileNetV3Small or MobileNetV3Large.",
        ),
        (
            {"architecture": "VGG16", "alpha": None, "batch_norm_momentum": 0.9},
            "model.batch_norm_momentum=0.9: VGG16 has no batch normalization. Set model.batch_norm_momentum=null.",
        ),
        (
            {"input_shape": (32, 32, 4)},
            "model.architecture=MobileNetV2 expects images of shape (height, width, 1 or 3), received (32, 32, 4). "
            "Choose other data, or set model=mlp.",
        ),
        (
            {"input_shape": (64,)},
            "model.architecture=MobileNetV2 expects images of shape (height, width, 1 or 3), received (64,). "
            "Choose other data, or set model=mlp.",
        ),
        (
            {"include_top": True, "weights": "imagenet"},
            "model.include_top=true with model.weights=imagenet expects data of 1000 classes, received 2. "
            "Set model.include_top=false for a new head, or model.weights=null.",
        ),
    ],
)
def test_conflicting_arguments_are_refused(build: Build, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        build(**changes)
    assert str(error.value) == message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size", "include_top"),
    [
        pytest.param("ConvNeXtTiny", 32, True, marks=pytest.mark.long),
        pytest.param("DenseNet121", 32, False, marks=pytest.mark.long),
        ("EfficientNetV2B0", 32, True),
        ("MobileNetV3Small", 32, True),
        pytest.param("NASNetMobile", 32, False, marks=pytest.mark.long),
        ("VGG16", 32, True),
        pytest.param("Xception", 71, False, marks=pytest.mark.long),
    ],
)
def test_other_architectures_build_freeze_and_keep_their_weights(
    build: Build, tmp_path: Path, architecture: str, size: int, include_top: bool
) -> None:
    arguments: dict[str, Any] = {"architecture": architecture, "alpha": None, "include_top": include_top}
    arguments |= {"input_shape": (size, size, 3), "num_classes": 3}
    source = build(**arguments, freeze=True)
    assert 0 < len(source.trainable_weights) < len(source.weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    network_of(source).save_weights(tmp_path / "network.weights.h5")
    target = build(**arguments, weights=str(tmp_path / "network.weights.h5"))
    for mine, theirs in zip(network_of(target).get_weights(), network_of(source).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert target(pixels).shape == (2, 3)
