"""The training loop of the TensorFlow 2 tutorial, with an explicit training step."""

import pkgutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from experiments.data.base import Splits
from experiments.errors import ConfigError
from experiments.loops.base import History, Position
from experiments.loops.callback_list import Observers
from experiments.loops.evaluation import reduce_logs, update_loss
from experiments.loops.step_cache import OncePerCompilation

Batch = Any
TrainStep = Callable[[keras.Model, Batch], dict[str, tf.Tensor]]
Execution = Callable[..., dict[str, tf.Tensor]]
"""A compiled function (iterator, count) -> metrics after the next `count` batches."""


def train_step(model: keras.Model, batch: Batch) -> dict[str, tf.Tensor]:
    """Updates the weights and returns the running metrics. Replace it by `loop.train_step=my_module.my_step`."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        # compute_loss adds the layers' regularisers, which a plain loss function would omit.
        loss = model.compute_loss(x=x, y=y, y_pred=logits, sample_weight=sample_weight, training=True)
        scaled_loss = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    update_loss(model, loss, tf.shape(x)[0])
    return model.compute_metrics(x, y, logits, sample_weight)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TapeLoop:
    """Traces the step once per compiled model, as `fit` does. Later changes of Python values do not affect it."""

    train_step: str | TrainStep
    steps_per_execution: int
    jit_compile: bool

    def __post_init__(self) -> None:
        # Finds a name that cannot be imported before a run begins.
        _resolve(self.train_step)

    def __call__(
        self,
        model: keras.Model,
        splits: Splits,
        *,
        epochs: int,
        start: Position,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> History:
        observers = Observers(callbacks, model=model, splits=splits, epochs=epochs, start=start)
        step = _resolve(self.train_step)
        execute = _executions.get(model, (self, step), lambda: self._execution(weakref.ref(model), step))
        for epoch, batches in observers.training():
            model.reset_metrics()
            observers.on_epoch_begin(epoch)
            iterator = iter(model.distribute_strategy.experimental_distribute_dataset(batches))
            steps = splits.train.steps_per_epoch - observers.first_step
            for done in range(0, steps, self.steps_per_execution):
                count = min(self.steps_per_execution, steps - done)
                observers.on_train_batch_begin(done)
                logs = execute(iterator, tf.constant(count))  # A Python number would be traced once per value.
                observers.on_train_batch_end(done + count - 1, logs)
                if model.stop_training:
                    break
            observers.on_epoch_end(epoch, model.get_metrics_result())
        return observers.history

    def _execution(self, model: Callable[[], keras.Model], step: TrainStep) -> Execution:
        @tf.function(reduce_retracing=True, jit_compile=self.jit_compile)
        def one_step(batch: Batch) -> dict[str, tf.Tensor]:
            strategy = model().distribute_strategy
            return reduce_logs(strategy, strategy.run(step, args=(model(), batch)))

        @tf.function(reduce_retracing=True)
        def execute(iterator: Any, count: tf.Tensor) -> dict[str, tf.Tensor]:
            if self.steps_per_execution > 1:
                for _ in tf.range(count - 1):
                    one_step(next(iterator))
            logs: dict[str, tf.Tensor] = one_step(next(iterator))
            return logs

        compiled: Execution = execute
        return compiled


_executions: OncePerCompilation[Execution] = OncePerCompilation()


def _resolve(step: str | TrainStep) -> TrainStep:
    if callable(step):
        return step
    try:
        resolved: TrainStep = pkgutil.resolve_name(step)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"loop.train_step={step} cannot be imported ({error}): expected the dotted name of a function "
            "(model, batch) -> metrics. Run from the folder that contains the module, or install it."
        ) from error
    if not callable(resolved):
        raise ConfigError(
            f"loop.train_step={step} is a {type(resolved).__name__}, not a function (model, batch) -> metrics. "
            "Name the function itself."
        )
    return resolved
