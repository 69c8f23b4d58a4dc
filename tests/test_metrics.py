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


@settings(deadline=None, max_examples=50)
@given(st.data(), st.sampled_from(["macro", "micro", "weighted"]), st.integers(2, 7))
def test_f1_score_equals_scikit_learn(data: st.DataObject, average: str, num_classes: int) -> None:
    """Labels and predictions may lack classes; outputs may be equal, and batches have different sizes."""
    labels = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=9)))
    values = st.lists(st.integers(-2, 2), min_size=num_classes, max_size=num_classes)
    outputs = np.array(data.draw(st.lists(values, min_size=len(labels), max_size=len(labels))), "float32")
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(labels), max_size=len(labels))), "float32")
    metric = F1Score(average=average)
    for part in (slice(0, 1), slice(1, 9))[: len(labels)]:
        metric.update_state(labels[part, None], outputs[part], weights[part, None])
    expected = f1_score(labels, outputs.argmax(axis=-1), average=average, sample_weight=weights, zero_division=0)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-5)


def test_f1_score_of_perfect_answers_is_one_if_classes_are_absent() -> None:
    metric = F1Score(average="macro")
    metric.update_state(np.array([1, 3]), np.eye(5, dtype="float32")[[1, 3]])
    assert float(metric.result()) == 1.0
    metric.reset_state()
    assert float(metric.result()) == 0.0


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
