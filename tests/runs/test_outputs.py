"""Logits and probabilities are told apart when a model is built, and no command applies a second softmax."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, metrics
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from experiments import losses as own_losses
from experiments import metrics as own_metrics
from experiments.cli.status import SILENT
from experiments.data import Splits, from_arrays
from experiments.data.base import DataSpec, Split
from experiments.errors import ConfigError
from experiments.loops.evaluation import Predictions
from experiments.models.mlp import mlp
from experiments.models.outputs import check_outputs, meaning_of_outputs
from experiments.runs import results
from experiments.runs.assembly import assemble
from experiments.runs.predictor import Predictor
from experiments.runs.saved_model import servable

Compose = Callable[..., DictConfig]
SHAPE = (4, 4, 3)
THIRDS = keras.initializers.Constant(1 / 3)


class Subclassed(keras.Model):
    """A model whose layers do not show that it ends in a softmax."""

    def __init__(self, activation: str | None = None) -> None:
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3, activation)

    def call(self, inputs: Any) -> Any:
        return keras.ops.softmax(self.dense(self.flatten(inputs)))


def sequential(*last: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), *last], name="mine")


class Gated(Subclassed):
    def call(self, inputs: Any) -> Any:
        return self.dense(self.flatten(inputs))


def functional_sigmoid() -> keras.Model:
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, keras.ops.sigmoid(layers.Dense(3)(layers.Flatten()(inputs))))


def embedding(activation: str | None) -> keras.Model:
    """A model of numbers below 20."""
    flat = [layers.Flatten(), layers.Embedding(20, 2), layers.Flatten()]
    return keras.Sequential([keras.Input(SHAPE), *flat, layers.Dense(3, activation)])


def softmax_model(input_shape: tuple[int, ...], num_classes: int, **_: Any) -> keras.Model:
    del input_shape
    return keras.Sequential([layers.Flatten(), layers.Dense(num_classes, "softmax")], name="mine")


class Computed(keras.Model):
    """Calls the sigmoid itself, so that none of its layers names it."""

    def __init__(self) -> None:
        super().__init__(name="mine")
        self.flatten, self.last = layers.Flatten(), layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return keras.ops.sigmoid(self.last(self.flatten(inputs)))


MODELS: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "dense": (lambda: sequential(layers.Dense(3)), "logits"),
    "ends in relu": (lambda: sequential(layers.Dense(3, "relu")), "logits"),
    "biased logits": (
        lambda: sequential(layers.Dense(3, bias_initializer=THIRDS)),
        "logits",
    ),
    "log_softmax": (lambda: sequential(layers.Dense(3, "log_softmax")), "logits"),
    "built-in": (lambda: mlp([4], 0.0, input_shape=SHAPE, num_classes=3), "logits"),
    "softmax activation": (lambda: sequential(layers.Dense(3, "softmax")), "probabilities"),
    "softmax layer": (lambda: sequential(layers.Dense(3), layers.Softmax()), "probabilities"),
    "activation layer": (lambda: sequential(layers.Dense(7), layers.Activation("softmax")), "probabilities"),
    "nested": (lambda: keras.Sequential([keras.Input(SHAPE), Subclassed()]), "probabilities"),
    "subclassed": (Subclassed, "probabilities"),
    "one logit": (lambda: sequential(layers.Dense(1)), "one output"),
    "sigmoid": (lambda: sequential(layers.Dense(1, "sigmoid")), "one output"),
    "sigmoid of each class": (lambda: sequential(layers.Dense(3, "sigmoid")), "independent probabilities"),
    "hard sigmoid": (lambda: sequential(layers.Dense(3, "hard_sigmoid")), "independent probabilities"),
    "sigmoid layer": (lambda: sequential(layers.Dense(3), layers.Activation("sigmoid")), "independent probabilities"),
    "sigmoid operation": (functional_sigmoid, "independent probabilities"),
    "nested sigmoid": (lambda: keras.Sequential([keras.Input(SHAPE), Gated("sigmoid")]), "independent probabilities"),
    "subclassed sigmoid": (lambda: Computed(), "independent probabilities"),
    "log_sigmoid": (lambda: sequential(layers.Dense(3, "log_sigmoid")), "logits"),
    "sigmoid, then softmax": (lambda: Subclassed("sigmoid"), "probabilities"),
    "logits within 0..1": (
        lambda: sequential(layers.Dense(4, kernel_initializer="zeros", bias_initializer=THIRDS)),
        "logits",
    ),
    "embedding": (lambda: embedding(None), "logits"),
    "embedding and softmax": (lambda: embedding("softmax"), "probabilities"),
    "embedding and sigmoid": (lambda: embedding("sigmoid"), "independent probabilities"),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_meaning_of_outputs_is_that_of_the_model(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        found = {name: meaning_of_outputs(make(), SHAPE, "uint8") for name, (make, _) in MODELS.items()}
    finally:
        keras.config.set_dtype_policy("float32")
    assert found == {name: expected for name, (_, expected) in MODELS.items()}


BY_CLASS = {"logits", "probabilities", "independent probabilities"}
TAKES: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "sparse logits": (lambda: losses.SparseCategoricalCrossentropy(from_logits=True), {"logits"}),
    "sparse probabilities": (lambda: losses.SparseCategoricalCrossentropy(from_logits=False), {"probabilities"}),
    "smoothed logits": (lambda: own_losses.CategoricalCrossentropy(0.1), {"logits"}),
    "smoothed probabilities": (lambda: own_losses.CategoricalCrossentropy(0.1, from_logits=False), {"probabilities"}),
    "Brier": (lambda: own_losses.MeanSquaredError(), {"logits"}),
    "binary": (lambda: losses.BinaryCrossentropy(from_logits=True), {"logits", "one output"}),
    "unknown": (lambda: losses.Poisson(), {*BY_CLASS, "one output"}),
    "accuracy": (lambda: own_metrics.SparseCategoricalAccuracy(), BY_CLASS),
    "F1": (lambda: own_metrics.F1Score(average="macro"), BY_CLASS),
    "metric of logits": (lambda: metrics.SparseCategoricalCrossentropy(from_logits=True), {"logits"}),
    "metric of probabilities": (lambda: metrics.SparseCategoricalCrossentropy(from_logits=False), {"probabilities"}),
}
"""Functions, because metrics create variables, which must not happen when modules are collected."""


@pytest.mark.parametrize("part", TAKES)
def test_contradictions_of_model_and_loss_or_metric_are_refused(part: str) -> None:
    make, accepted = TAKES[part]
    for received, last in {
        "logits": layers.Dense(3),
        "probabilities": layers.Dense(3, "softmax"),
        "independent probabilities": layers.Dense(3, "sigmoid"),
        "one output": layers.Dense(1),
    }.items():
        if received in accepted:
            check_outputs([make()], sequential(last), SHAPE, "uint8")
        else:
            with pytest.raises(ConfigError, match=f"expects .*, received {received} from the model mine"):
                check_outputs([make()], sequential(last), SHAPE, "uint8")


def test_binary_crossentropy_of_three_classes_is_refused() -> None:
    """With a label of 2 the loss has no minimum."""
    model, loss = sequential(layers.Dense(1)), losses.BinaryCrossentropy(from_logits=True)
    check_outputs([loss], model, SHAPE, "uint8", 2)
    with pytest.raises(ConfigError, match="BinaryCrossentropy expects one output for each class, received one output"):
        check_outputs([loss], model, SHAPE, "uint8", 3)
    check_outputs([losses.MeanSquaredError()], model, SHAPE, "uint8", 3)


@pytest.mark.parametrize("make", [metrics.SparseTopKCategoricalAccuracy, metrics.TopKCategoricalAccuracy])
def test_top_k_that_no_example_can_miss_is_refused(make: Callable[..., keras.metrics.Metric]) -> None:
    """The label of the example is the class with the smallest output."""
    outputs = np.array([[0.4, 0.3, 0.2, 0.1]], np.float32)
    for classes, k in np.ndindex(5, 6):
        if classes < 2 or k < 1:
            continue
        label = np.array([classes - 1])
        metric, sparse = make(k, name="top_k"), make is metrics.SparseTopKCategoricalAccuracy
        found = metric(label if sparse else np.eye(classes)[label], outputs[:, :classes])
        if float(found) == 0:
            check_outputs([metric], sequential(layers.Dense(classes)), SHAPE, "uint8")
        else:
            with pytest.raises(ConfigError) as error:
                check_outputs([metric], sequential(layers.Dense(classes)), SHAPE, "uint8")
            assert str(error.value) == (
                f"metrics.top_k.k={k} is always reached with {classes} classes, so the metric is always 1: expected "
                f"less than {classes}. Lower metrics.top_k.k, or leave top_k out of metrics."
            )


@dataclass(frozen=True)
class FloatLabels:
    """A user-defined split with float targets."""

    split: Split
    spec: DataSpec
    batch_size: int
    steps_per_epoch: int

    def epoch(self, epoch: int, *, first_step: int = 0) -> tf.data.Dataset:
        return self.split.epoch(epoch, first_step=first_step).map(lambda x, y: (x, tf.cast(y, tf.float32) / 2))


def float_labels(**_: Any) -> Splits:
    pair = np.zeros((4, 2), np.float32), np.arange(4) % 2
    splits = from_arrays(pair, pair, batch_size=2, shuffle=False, seed=0, source="my measurements")
    wrapped = [FloatLabels(each, each.spec, 2, 2) for each in (splits.train, splits.validation)]
    return Splits(*wrapped)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "loss.from_logits=false",
            "SparseCategoricalCrossentropy expects probabilities, received logits from the model multilayer_percep",
        ),
        (
            f"model._target_={__name__}.softmax_model",
            "SparseCategoricalCrossentropy expects logits, received probabilities from the model mine. Change the last "
            "layer of the model or its activation, or set another loss, other metrics, or from_logits of these.",
        ),
        (
            f"data._target_={__name__}.float_labels",
            "The labels of my measurements are float32: expected integers. Number the classes from 0.",
        ),
    ],
)
def test_contradictions_are_refused_before_the_run(composed: Compose, overrides: str, message: str) -> None:
    cfg = composed(
        "data=digits", "data.limit=20", "model=mlp", "logging=none", "logging.log_model=false", *overrides.split()
    )
    with pytest.raises(ConfigError) as error:
        assemble(cfg, None, SILENT)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["dense", "log_softmax", "softmax activation", "subclassed"])
def test_served_and_predicted_probabilities_have_one_softmax(tmp_path: Path, name: str) -> None:
    make, meaning = MODELS[name]
    model = make()
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype(np.uint8)
    outputs = np.asarray(model(images))
    exponents = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True) if meaning == "logits" else outputs
    spec = DataSpec(SHAPE, "uint8", 3, ("a", "b", "c"), 5, "0", (2, 2, 1), "here")
    np.testing.assert_allclose(np.asarray(servable(model, spec)(images)), expected, atol=1e-6)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    rows = Predictor(model, spec, antialias=False).rows(files, all_classes=True)
    found = [list(row["probabilities"].values()) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "softmax activation", "sigmoid of each class"])
def test_figures_show_the_predicted_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, meaning = MODELS[name]
    model, labels, drawn = make(), np.arange(5) % 3, list[Predictions]()
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype(np.uint8)
    outputs = np.asarray(model(images))
    monkeypatch.setattr(results, "best_predictions", lambda _: Predictions(labels, outputs))
    monkeypatch.setattr("experiments.runs.figures.draw", lambda *_, predictions, **__: drawn.append(predictions))
    cfg = OmegaConf.create({"logging": {"log_model": False, "log_figures": True}})
    splits = from_arrays((images, labels), (images, labels), batch_size=2, shuffle=False, seed=0)
    results.save_results(cfg, model, splits, {}, 0, tmp_path, cast(Any, None))
    exponents = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True) if meaning == "logits" else outputs
    np.testing.assert_allclose(drawn[0].outputs, expected, atol=1e-6)


def test_one_output_is_served_as_the_loss_takes_it_and_not_predicted() -> None:
    model = sequential(layers.Dense(1))
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype(np.uint8)
    spec = DataSpec(SHAPE, "uint8", 2, ("a", "b"), 5, "0", (3, 2), "here")
    outputs = np.asarray(model(images))
    np.testing.assert_array_equal(np.asarray(servable(model, spec)(images)), outputs)
    served = np.asarray(servable(model, spec, from_logits=True)(images))
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-outputs)), atol=1e-6)
    with pytest.raises(ConfigError, match="mine returns one output: expected one for each class"):
        Predictor(model, spec, antialias=False).rows([], all_classes=False)


def test_model_without_finite_outputs_for_constant_inputs_returns_probabilities() -> None:
    standardized = layers.Lambda(lambda x: (x - keras.ops.mean(x)) / keras.ops.std(x, axis=(1, 2, 3), keepdims=True))
    model = keras.Sequential([keras.Input(SHAPE), standardized, layers.Flatten(), layers.Dense(3, "softmax")])
    assert meaning_of_outputs(model, SHAPE, "uint8") == "probabilities"
