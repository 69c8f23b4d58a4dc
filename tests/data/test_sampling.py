"""Class weights and balanced sampling: their values, epochs from any step on, and messages on invalid options."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from experiments.data import ColorJitter, IndexedSplit, Splits, from_arrays
from experiments.data.sampling import balanced_order
from experiments.errors import DataError

LABELS = np.array([0] * 12 + [1] * 4 + [2] * 3)


def splits(**changes: Any) -> Splits:
    inputs = np.random.default_rng(0).integers(0, 256, (len(LABELS), 4, 4, 3), np.uint8)
    options = {"batch_size": 4, "shuffle": True, "seed": 5, "class_names": ["cats", "dogs", "owls"], **changes}
    return from_arrays((inputs, LABELS), validation=(inputs[:3], [0, 1, 2]), **options)


def weights_of(class_weight: Any) -> dict[int, float]:
    """Returns the weights in the batches of an epoch, by label."""
    found: dict[int, float] = {}
    for _, labels, weights in splits(class_weight=class_weight).train.epoch(0):
        found |= dict(zip(labels.numpy().tolist(), weights.numpy().tolist(), strict=True))
    return found


def test_balanced_weights_equal_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.unique(LABELS), y=LABELS)
    np.testing.assert_allclose([weights_of("balanced")[label] for label in range(3)], expected, rtol=1e-6)


def test_missing_class_weights_are_one() -> None:
    assert weights_of({"dogs": 3, "owls": 0.5}) == {0: 1.0, 1: 3.0, 2: 0.5}


def test_numbered_classes_are_weighted_by_number() -> None:
    assert weights_of({"cats": 1.0, "owls": 0}) == {0: 1.0, 1: 1.0, 2: 0.0}
    assert weights_of({0: 2.0, 2: 0.5}) == {0: 2.0, 1: 1.0, 2: 0.5}
    numbered = splits(class_weight={1: 2.0}, class_names=None).train
    assert isinstance(numbered, IndexedSplit)
    assert numbered.class_weights == (1.0, 2.0, 1.0)


def test_only_training_split_is_weighted_and_balanced() -> None:
    made = splits(class_weight="balanced", shuffle=False)
    assert len(made.train.epoch(0).element_spec) == 3
    assert len(made.validation.epoch(0).element_spec) == 2
    assert made.train.epoch(0).element_spec[2].shape.as_list() == [None]
    sampled = splits(sampling="balanced").validation
    np.testing.assert_array_equal(next(iter(sampled.epoch(0)))[1], [0, 1, 2])


def test_class_without_examples_has_weight_zero() -> None:
    inputs = np.zeros((4, 2), np.float32)
    made = from_arrays(
        (inputs, [0, 0, 0, 2]),
        validation=(inputs, [0, 1, 2, 2]),
        batch_size=2,
        shuffle=False,
        seed=0,
        class_weight="balanced",
    )
    assert isinstance(made.train, IndexedSplit)
    assert made.train.class_weights == pytest.approx((2 / 3, 0.0, 2.0))


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80).map(lambda found: np.array(found, np.int64)),
    seed=st.integers(0, 9),
)
def test_balanced_order_uses_classes_and_their_examples_equally_often(labels: Any, seed: int) -> None:
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(order) == len(labels)
    times = np.bincount(labels[order], minlength=5)[np.unique(labels)]
    assert times.max() - times.min() <= 1
    for label in np.unique(labels):
        each = np.bincount(order, minlength=len(labels))[labels == label]
        assert each.max() - each.min() <= 1
    np.testing.assert_array_equal(order, balanced_order(labels, np.random.default_rng(seed)))


@settings(max_examples=10, deadline=None)
@given(epoch=st.integers(0, 3), first_step=st.integers(0, 5), batch_size=st.integers(1, 7))
def test_balanced_epoch_can_start_at_any_step(epoch: int, first_step: int, batch_size: int) -> None:
    options: dict[str, Any] = {"sampling": "balanced", "batch_size": batch_size, "augment": [ColorJitter(0.3, 0.3)]}
    train = splits(**options, class_weight={"cats": 2}).train
    whole, late = (list(train.epoch(epoch, first_step=first).as_numpy_iterator()) for first in (0, first_step))
    assert len(whole) == train.steps_per_epoch
    for expected, found in zip(whole[first_step:], late, strict=True):
        for left, right in zip(expected, found, strict=True):
            np.testing.assert_array_equal(left, right)


def test_example_drawn_twice_is_augmented_differently() -> None:
    train = splits(sampling="balanced", augment=[ColorJitter(0.3, 0.3)], batch_size=len(LABELS)).train
    assert isinstance(train, IndexedSplit)
    order, (inputs, _) = train.order(0), next(iter(train.epoch(0)))
    twice = np.flatnonzero(order == np.flatnonzero(np.bincount(order) > 1)[0])
    assert not np.array_equal(inputs[twice[0]], inputs[twice[1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_weight": {"dog": 2}},
            "data.class_weight names the class 'dog'. Did you mean 'dogs'?",
        ),
        (
            {"class_weight": {"dogs": -1}},
            "data.class_weight.dogs=-1: expected null, balanced or a number of 0 or more for a class, as in "
            "data.class_weight={cats:2}. Change data.class_weight.",
        ),
        (
            {"class_weight": "ballanced"},
            "data.class_weight=ballanced: expected null, balanced or a number of 0 or more for a class, as in "
            "data.class_weight={cats:2}. Change data.class_weight.",
        ),
        (
            {"class_weight": {"cats": 0, "dogs": 0, "owls": 0}},
            "data.class_weight gives every class a weight of 0: expected one above 0. Change a weight.",
        ),
        (
            {"sampling": "balanced", "shuffle": False},
            "data.sampling=balanced draws examples at random, which data.shuffle=false forbids. Set data.shuffle=true "
            "or data.sampling=shuffled.",
        ),
        (
            {"sampling": "balanced", "class_weight": "balanced"},
            "data.sampling=balanced and data.class_weight=balanced both correct for classes of unequal size: expected "
            "one of them. Set data.class_weight=null or data.sampling=shuffled.",
        ),
    ],
)
def test_invalid_options_are_refused_with_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        splits(**changes)
    assert str(raised.value) == message
