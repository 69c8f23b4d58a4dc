"""Properties that subclassed models need, tested with the cnn and the mlp."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.errors import ModelError
from experiments.models.cnn import cnn
from experiments.models.mlp import mlp

Factory = Callable[[tuple[int, ...]], keras.Model]


def small_cnn(input_shape: tuple[int, ...]) -> keras.Model:
    return cnn([4, 8, 8, 8], 0.2, 0.9, l2=1e-3, input_shape=input_shape, num_classes=3)


def small_mlp(input_shape: tuple[int, ...]) -> keras.Model:
    return mlp([32, 16], 0.2, input_shape=input_shape, num_classes=3)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)


FACTORIES = pytest.mark.parametrize("factory", [small_cnn, small_mlp])


@FACTORIES
@pytest.mark.parametrize("shape", [(8, 8, 1), (40, 30, 3)])
def test_raw_pixels_become_logits(factory: Factory, shape: tuple[int, ...]) -> None:
    logits = factory(shape)(pixels(*shape))
    assert logits.shape == (4, 3)
    assert logits.dtype == "float32"


@FACTORIES
def test_integer_pixels_equal_scaled_floats(factory: Factory) -> None:
    model, inputs = factory((8, 8, 1)), pixels(8, 8, 1)
    np.testing.assert_allclose(model(inputs), model(inputs.astype("float32") / 255), atol=1e-6)


@FACTORIES
@pytest.mark.parametrize("wrapped", [False, True], ids=["logits", "served"])
def test_saved_model_returns_same_outputs(factory: Factory, wrapped: bool, tmp_path: Path) -> None:
    model, inputs = factory((8, 8, 1)), pixels(8, 8, 1)
    model(inputs)
    if wrapped:
        images = keras.Input((8, 8, 1), dtype="uint8")
        model = keras.Model(images, keras.layers.Softmax()(model(images)))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@FACTORIES
def test_fit_lowers_the_loss(factory: Factory) -> None:
    keras.utils.set_random_seed(0)
    model, inputs = factory((8, 8, 1)), pixels(8, 8, 1)
    model(inputs)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(inputs, np.array([0, 1, 2, 0]), epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@FACTORIES
def test_logits_are_float32_under_mixed_precision(factory: Factory, mixed_bfloat16: None) -> None:
    assert factory((8, 8, 1))(pixels(8, 8, 1)).dtype == "float32"


@FACTORIES
def test_model_builds_under_mirrored_strategy(factory: Factory) -> None:
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        assert factory((8, 8, 1))(pixels(8, 8, 1)).shape == (4, 3)


def test_cnn_adds_l2_of_kernels_to_loss() -> None:
    model = small_cnn((8, 8, 1))
    model(pixels(8, 8, 1))
    kernels = [block.convolution.kernel.numpy() for block in model.blocks]
    assert sum(model.losses).numpy() == pytest.approx(1e-3 * sum((kernel**2).sum() for kernel in kernels), rel=1e-5)
    assert not cnn([4], 0.0, 0.9, l2=0.0, input_shape=(8, 8, 1), num_classes=3).losses


def test_mlp_accepts_rows_and_is_linear_without_hidden_layers() -> None:
    model = mlp([], 0.0, input_shape=(5,), num_classes=2)
    assert model(np.zeros((4, 5), "float32")).shape == (4, 2)
    assert len(model.weights) == 2


@pytest.mark.parametrize(
    ("shape", "remedy"), [((64,), ""), ((8, 8), ", or save grey images as images[..., np.newaxis]")]
)
def test_cnn_refuses_inputs_that_are_not_images(shape: tuple[int, ...], remedy: str) -> None:
    with pytest.raises(ModelError) as error:
        small_cnn(shape)
    assert str(error.value) == (
        f"model=cnn expects images of shape (height, width, channels), received {shape}. Set model=mlp{remedy}."
    )


@pytest.mark.parametrize("make", [small_cnn, small_mlp])
def test_checkpoint_of_tutorial_contains_every_weight(make: Factory, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype("uint8")
    model, fresh = make((8, 8, 1)), make((8, 8, 1))
    expected = np.asarray(model(images))
    assert not np.array_equal(np.asarray(fresh(images)), expected)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(model=fresh).restore(path)
    np.testing.assert_array_equal(np.asarray(fresh(images)), expected)
