"""Computes loss, metrics and predictions of a split in one pass."""

import weakref
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments.data.base import Split
from experiments.loops.step_cache import OncePerCompilation


class Predictions(NamedTuple):
    """Labels [num_examples] and outputs of the model [num_examples, ...], both in the order of the split."""

    labels: np.ndarray
    outputs: np.ndarray


class Evaluation:
    """Computes the results of `model.evaluate`, and the outputs of `model.predict` in the same pass."""

    def __init__(self, model: keras.Model) -> None:
        # A weak reference, so that the cache of `evaluation_of` keeps no model alive.
        self._model = weakref.ref(model)
        # Autograph is also off in Keras's own evaluation. The argument is an iterator, whose batch axis has no fixed
        # size. With a batch as argument, a short last batch would be traced again.
        self._step = tf.function(self._distributed_step, reduce_retracing=True, autograph=False)

    def __call__(
        self, split: Split, *, callbacks: keras.callbacks.CallbackList | None = None
    ) -> tuple[dict[str, float], Predictions]:
        observers = callbacks or keras.callbacks.CallbackList()
        strategy = self.model.distribute_strategy
        observers.on_test_begin()
        self.model.reset_metrics()
        parts: list[tuple[tf.Tensor, tf.Tensor]] = []
        batches = iter(strategy.experimental_distribute_dataset(split.epoch(0)))
        for index in range(split.steps_per_epoch):
            observers.on_test_batch_begin(index)
            replicas, logs = self._step(batches)
            parts += zip(*map(strategy.experimental_local_results, replicas), strict=True)
            observers.on_test_batch_end(index, logs)
        metrics = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        observers.on_test_end(metrics)
        labels, outputs = (
            np.concatenate([np.asarray(tensor) for tensor in tensors]) for tensors in zip(*parts, strict=True)
        )
        return metrics, Predictions(labels, outputs)

    @property
    def model(self) -> keras.Model:
        return self._model()

    def _distributed_step(self, batches: Any) -> tuple[Any, dict[str, tf.Tensor]]:
        strategy = self.model.distribute_strategy
        predictions, logs = strategy.run(self._replica_step, args=(batches.get_next(),))
        return predictions, reduce_logs(strategy, logs)

    def _replica_step(self, batch: Any) -> tuple[tuple[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        outputs = self.model(x, training=False)
        logs = _update_metrics(self.model, x, y, outputs, sample_weight)
        # NumPy has no bfloat16.
        return (y, tf.cast(outputs, tf.float32)), logs


_evaluations: OncePerCompilation[Evaluation] = OncePerCompilation()


def evaluation_of(model: keras.Model) -> Evaluation:
    """Returns one evaluation for all splits of a model, so that its step is traced only once."""
    return _evaluations.get(model, None, lambda: Evaluation(model))


def _update_metrics(
    model: keras.Model, x: tf.Tensor, y: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=False)
    update_loss(model, loss, tf.shape(x)[0])
    return model.compute_metrics(x, y, outputs, sample_weight)  # type: ignore[no-any-return]


def build_variables(model: keras.Model, split: Split) -> list[str]:
    """Creates all variables of model, optimizer and metrics with one example of zeros. Returns the metrics' names.

    Restoring needs the variables, the names can be checked before training, and a mirrored strategy cannot create
    variables during a step.
    """
    spec = split.spec
    x, y = tf.zeros((1, *spec.input_shape), spec.input_dtype), tf.zeros((1,), tf.int64)
    with model.distribute_strategy.scope():
        outputs = model(x)
        model.optimizer.build(model.trainable_variables)
    model.distribute_strategy.run(_update_metrics, args=(model, x, y, outputs))
    names = list(model.get_metrics_result())
    model.reset_metrics()
    return names


def update_loss(model: keras.Model, loss: tf.Tensor, examples: tf.Tensor) -> None:
    """Adds a batch to the mean that Keras reports as `loss`. Reverts the division by replicas in `compute_loss`."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    # The first metric is Keras's tracker of the loss.
    model.metrics[0].update_state(loss * replicas if replicas > 1 else loss, sample_weight=examples)


def reduce_logs(strategy: tf.distribute.Strategy, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Averages batch metrics over replicas, as Keras does."""
    return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}
