import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.losses import CategoricalCrossentropy, MeanSquaredError

LABELS = np.array([0, 2, 1, 2], np.int64)
LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[LABELS]


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None]], ids=["rank 1", "rank 2"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_crossentropy_equals_keras_on_one_hot(labels: np.ndarray, label_smoothing: float) -> None:
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)(ONE_HOT, LOGITS)
    np.testing.assert_allclose(CategoricalCrossentropy(label_smoothing)(labels, LOGITS), expected, rtol=1e-6)


def test_crossentropy_without_smoothing_equals_sparse_crossentropy() -> None:
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    np.testing.assert_allclose(CategoricalCrossentropy(0.0)(LABELS, LOGITS), expected, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.lists(st.floats(0, 5), min_size=4, max_size=4))
def test_mean_squared_error_equals_keras_on_probabilities(labels: list[int], weights: list[float]) -> None:
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    weight = np.array(weights, "float32")
    expected = keras.losses.MeanSquaredError()(np.eye(3, dtype="float32")[labels], probabilities, weight)
    np.testing.assert_allclose(MeanSquaredError()(np.array(labels), LOGITS, weight), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [CategoricalCrossentropy(0.1), MeanSquaredError()], ids=lambda loss: loss.name)
def test_loss_survives_serialization(loss: keras.losses.Loss) -> None:
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    np.testing.assert_array_equal(copy(LABELS, LOGITS), loss(LABELS, LOGITS))
