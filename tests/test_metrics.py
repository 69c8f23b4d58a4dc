from collections.abc import Callable

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from experiments.metrics import F1Score, SparseCategoricalAccuracy

LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
LABELS = np.array([0, 2, 1, 2, 0, 1], np.int64)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.none() | st.lists(st.floats(0, 10, width=32), min_size=6, max_size=6),
)
def test_accuracy_equals_keras(labels: list[int], weights: list[float] | None) -> None:
    custom, expected = SparseCategoricalAccuracy(), keras.metrics.SparseCategoricalAccuracy()
    weight = None if weights is None else np.array(weights, "float32")
    for part in (slice(0, 4), slice(4, 6)):
        chosen = None if weight is None else weight[part]
        for metric in (custom, expected):
            metric.update_state(np.array(labels)[part], LOGITS[part], sample_weight=chosen)
    np.testing.assert_allclose(custom.result(), expected.result(), rtol=1e-6)


def test_accuracy_accepts_columns_and_is_zero_after_reset() -> None:
    metric = SparseCategoricalAccuracy(name="seen")
    assert float(metric.result()) == 0.0
    metric.update_state(LABELS[:, None], LOGITS, sample_weight=np.ones((6, 1), "float32"))
    assert float(metric.result()) == pytest.approx(float((LOGITS.argmax(-1) == LABELS).mean()))
    metric.reset_state()
    assert float(metric.result()) == 0.0
    assert metric.name == "seen"


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_score_equals_scikit_learn(average: str) -> None:
    metric = F1Score(average=average)
    metric.update_state(LABELS, LOGITS)
    expected = f1_score(LABELS, LOGITS.argmax(-1), average=average)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-5)


def test_f1_score_counts_a_largest_logit_of_zero() -> None:
    metric = F1Score(average="micro")
    metric.update_state(np.array([0, 1]), np.array([[0.0, -1.0], [-1.0, 0.0]], "float32"))
    assert float(metric.result()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("metric", [SparseCategoricalAccuracy, lambda: F1Score(average="macro", name="f1_score")])
def test_metric_works_in_evaluate_and_survives_serialization(metric: Callable[[], keras.metrics.Metric]) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, kernel_initializer="identity")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[metric()])
    evaluated = model.evaluate(LOGITS, LABELS, batch_size=4, verbose=0, return_dict=True)
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric()))
    copy.update_state(LABELS, LOGITS)
    assert evaluated[copy.name] == pytest.approx(float(copy.result()))
