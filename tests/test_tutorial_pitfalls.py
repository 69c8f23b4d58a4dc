"""The pitfalls of docs/tutorial-map.md: each exists as described, and this package avoids it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import FitLoop, Position, Splits, TapeLoop, from_arrays
from experiments.data import Flip
from experiments.loops.evaluation import build_variables
from experiments.loops.tape import train_step
from experiments.models.cnn import cnn
from experiments.models.mlp import mlp

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "tutorial-map.md").read_text(encoding="utf-8")
COUNT, BATCH = 40, 8


def _splits(num_parallel_calls: int = 1, **changes: Any) -> Splits:
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(COUNT, 8, 8, 1), dtype=np.uint8)
    labels = generator.integers(10, size=COUNT)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "seed": 0, **changes}
    return from_arrays((images, labels), (images, labels), num_parallel_calls=num_parallel_calls, **options)


def _model(l2: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = cnn([4], dropout=0.5, batch_norm_momentum=0.9, l2=l2, input_shape=(8, 8, 1), num_classes=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    build_variables(model, _splits().validation)
    return model


LOOPS = [
    pytest.param(FitLoop(steps_per_execution=1, jit_compile=False), id="fit"),
    pytest.param(TapeLoop(train_step=train_step, steps_per_execution=1, jit_compile=False), id="tape"),
]


def _batch() -> tuple[tf.Tensor, tf.Tensor]:
    batch: tuple[tf.Tensor, tf.Tensor] = next(iter(_splits().train.epoch(0)))
    return batch


PITFALLS = {
    "Shuffling decoded images": "test_shuffling_needs_no_shuffle_buffer",
    "The gradient of the loss": "test_gradient_comes_from_tape_not_from_loss",
    "Probabilities where logits are meant": "test_softmax_before_logits_loss_limits_the_loss",
    "Regularisers that are dropped": "test_train_step_includes_regularizers",
    "Metrics that are never reset": "test_metrics_are_reset_in_each_epoch",
    "training=True forgotten": "test_train_step_updates_batch_normalization",
    "The number of steps of a short first epoch": "test_short_first_epoch_does_not_shorten_others",
    "Random augmentation that depends on threads": "test_augmentation_is_equal_for_any_number_of_threads",
}


def test_each_pitfall_has_a_test() -> None:
    assert re.findall(r"^### (.*)", MAP, re.MULTILINE) == list(PITFALLS)
    assert [name for name in PITFALLS.values() if name not in globals()] == []


def test_shuffling_needs_no_shuffle_buffer() -> None:
    sources = (ROOT / "src" / "experiments" / "data").glob("*.py")
    assert [path.name for path in sources if ".shuffle(" in path.read_text()] == []
    first, again, other = (
        np.concatenate([labels for _, labels in _splits().train.epoch(epoch).as_numpy_iterator()])
        for epoch in (3, 3, 4)
    )
    assert first.tolist() == again.tolist() != other.tolist()


def test_gradient_comes_from_tape_not_from_loss() -> None:
    kernel = tf.Variable([2.0])
    with tf.GradientTape() as tape:
        loss = kernel**2
    with pytest.raises(AttributeError, match="gradient"):
        loss.gradient([kernel])
    assert tape.gradient(loss, [kernel])[0].numpy() == [4.0]


@pytest.mark.parametrize(("logits_of", "smallest"), [(tf.nn.softmax, 1.46), (tf.identity, 0.0)])
def test_softmax_before_logits_loss_limits_the_loss(logits_of: Any, smallest: float) -> None:
    certain = logits_of(100.0 * tf.eye(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(tf.range(10), certain)
    assert float(loss) == pytest.approx(smallest, abs=0.005)


def test_builtin_models_return_logits() -> None:
    for model in (_model(), mlp([4], dropout=0.0, input_shape=(8, 8, 1), num_classes=10)):
        assert not np.allclose(np.sum(model(_batch()[0]), axis=-1), 1.0)


def test_train_step_includes_regularizers() -> None:
    model, (images, labels) = _model(l2=1.0), _batch()
    plain = model.loss(labels, model(images, training=False))
    whole = model.compute_loss(x=images, y=labels, y_pred=model(images, training=False))
    kernel = model.blocks[0].convolution.kernel
    assert float(whole - plain) == pytest.approx(float(tf.reduce_sum(kernel**2)), rel=1e-4)


class Recorder(keras.callbacks.Callback):
    """Callback that records the number of steps of each epoch and of examples in its mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.examples: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.steps.append(0)
        self.examples.append(0)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.steps[-1] += 1
        self.examples[-1] = int(self.model.metrics[0].count)


def _train(loop: Any, start: Position) -> Recorder:
    recorder = Recorder()
    loop(_model(), _splits(), epochs=3, start=start, callbacks=[recorder])
    return recorder


@pytest.mark.parametrize("loop", LOOPS)
def test_metrics_are_reset_in_each_epoch(loop: Any) -> None:
    assert _train(loop, Position()).examples == [COUNT] * 3


@pytest.mark.parametrize("loop", LOOPS)
def test_short_first_epoch_does_not_shorten_others(loop: Any) -> None:
    assert _train(loop, Position(epoch=1, step=3)).steps == [COUNT // BATCH - 3, COUNT // BATCH]


def test_train_step_updates_batch_normalization() -> None:
    model = _model()
    moving_mean = model.blocks[0].normalization.moving_mean
    before = moving_mean.numpy()
    model(_batch()[0])
    assert (moving_mean.numpy() == before).all()
    train_step(model, _batch())
    assert (moving_mean.numpy() != before).any()


def test_augmentation_is_equal_for_any_number_of_threads() -> None:
    one, four = (
        np.concatenate([images for images, _ in splits.train.epoch(1).as_numpy_iterator()])
        for splits in (_splits(count, augment=[Flip(horizontal=True, vertical=True)]) for count in (1, 4))
    )
    assert (one == four).all()
