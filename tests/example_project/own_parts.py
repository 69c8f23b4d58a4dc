"""Custom components. Each is the target of one YAML file in conf/, or of `loop.train_step`."""

# ruff: noqa: ARG002 -- Keras passes more arguments than each method needs.

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.losses import sparse_categorical_crossentropy

from experiments import Splits, from_arrays, log_image, log_scalar
from experiments.loops import update_loss


def stripes(num_examples: int, **options: Any) -> Splits:
    """Striped images, uint8 [16, 16, 1]; options: batch_size, seed, ..."""
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=num_examples)
    levels = generator.integers(256, size=(num_examples, 16, 1), dtype="uint8")
    lying = levels.repeat(16, axis=2)
    images = np.where(labels[:, None, None] == 0, lying, lying.transpose(0, 2, 1))
    return from_arrays(
        (images, labels),
        class_names=["lying", "standing"],
        source="own_parts.stripes",
        **options,
    )


@keras.saving.register_keras_serializable(package="own_parts")
class TwoLayers(keras.Model):
    """Maps pixels 0..255 to logits."""

    def __init__(self, units: int, num_classes: int, input_shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.arguments = {"units": units, "num_classes": num_classes, "input_shape": input_shape}
        self.flatten = keras.layers.Reshape([int(np.prod(input_shape))])
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.logits = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, inputs: Any) -> Any:
        return self.logits(self.hidden(self.flatten(keras.ops.cast(inputs, "float32") / 255)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}


class FocalLoss(keras.losses.Loss):
    """Cross-entropy, less for easy examples. https://arxiv.org/abs/1708.02002"""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def call(self, labels: Any, logits: Any) -> Any:
        crossentropy = sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return (1 - keras.ops.exp(-crossentropy)) ** self.gamma * crossentropy


class Confidence(keras.metrics.Mean):
    """Mean probability of the predicted class."""

    def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
        highest = keras.ops.max(keras.ops.softmax(logits), axis=-1)
        super().update_state(highest, sample_weight)


class WatchFirstLayer(keras.callbacks.Callback):
    """Logs the norm of the first kernel, and its first unit as an image."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        kernel = self.model.hidden.kernel.numpy()
        log_scalar("first_layer/norm", float(np.linalg.norm(kernel)), epoch + 1)
        unit = kernel[:, 0].reshape(16, 16, 1)
        log_image("first_layer/unit_0", (unit - unit.min()) / np.ptp(unit), epoch + 1)


def small_logits_step(model: keras.Model, batch: Any) -> Any:
    """Adds a penalty on large logits to the loss of the built-in step."""
    x, y = batch
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=logits, training=True)
        loss += 1e-3 * tf.reduce_mean(tf.reduce_logsumexp(logits, axis=-1) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    update_loss(model, loss, tf.shape(x)[0])
    return model.compute_metrics(x, y, logits)
