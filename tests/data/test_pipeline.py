"""Batch k of epoch e depends only on the config."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data import ColorJitter, CropAndResize, Flip, IndexedSplit, Rot90, Rotate, Splits, from_arrays

AUGMENTATIONS = (Flip(True, True), Rot90(), Rotate(15), CropAndResize(0.6), ColorJitter(0.2, 0.3))


def images(count: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 6, 6, 3), np.uint8), np.arange(count) % 3


def splits(count: int = 23, **changes: Any) -> Splits:
    options = {"batch_size": 5, "shuffle": True, "seed": 7, "augment": AUGMENTATIONS, **changes}
    return from_arrays(images(count), validation=images(4, 1), test=images(3, 2), **options)


def batches(split: Any, epoch: int, first_step: int = 0) -> list[tuple[Any, Any]]:
    return [(x.numpy(), y.numpy()) for x, y in split.epoch(epoch, first_step=first_step)]


def assert_equal(left: list[tuple[Any, Any]], right: list[tuple[Any, Any]]) -> None:
    assert len(left) == len(right)
    for (x, y), (other_x, other_y) in zip(left, right, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    epoch=st.integers(0, 3),
    parallel=st.one_of(st.just("auto"), st.integers(1, 4)),
    prefetch=st.one_of(st.just("auto"), st.integers(0, 3)),
    part=st.floats(0, 1),
)
def test_batches_do_not_depend_on_parallelism_prefetch_or_first_step(
    count: int, batch_size: int, epoch: int, parallel: Any, prefetch: Any, part: float
) -> None:
    plain = splits(count, batch_size=batch_size, num_parallel_calls=1, prefetch=0).train
    other = splits(count, batch_size=batch_size, num_parallel_calls=parallel, prefetch=prefetch).train
    expected = batches(plain, epoch)
    assert len(expected) == plain.steps_per_epoch
    assert [len(y) for _, y in expected] == [min(batch_size, count - at) for at in range(0, count, batch_size)]
    first_step = round(part * plain.steps_per_epoch)
    assert_equal(batches(other, epoch, first_step), expected[first_step:])


def test_autotuning_is_disabled() -> None:
    """The tuning thread can delay the end of a stopped run by half a minute."""
    assert not splits(num_parallel_calls="auto", prefetch="auto").train.epoch(0).options().autotune.enabled


def test_order_of_epoch_is_documented_permutation() -> None:
    split = splits(augment=()).train
    x, y = images(23)
    order = np.random.default_rng([7, 2]).permutation(23)
    assert_equal(batches(split, 2), [(x[order[at : at + 5]], y[order[at : at + 5]]) for at in range(0, 23, 5)])
    assert not np.array_equal(order, np.random.default_rng([7, 3]).permutation(23))


def test_augmentation_depends_only_on_example() -> None:
    """Examples are changed in the same way in another order and with another batch size."""
    shuffled, straight = splits().train, splits(shuffle=False, batch_size=9).train
    assert isinstance(shuffled, IndexedSplit)
    found = np.concatenate([x for x, _ in batches(shuffled, 1)])
    expected = np.concatenate([x for x, _ in batches(straight, 1)])
    np.testing.assert_array_equal(found, expected[shuffled.order(1)])
    assert not np.array_equal(expected, images(23)[0])
    assert not np.array_equal(expected, np.concatenate([x for x, _ in batches(straight, 2)]))


def test_validation_and_test_are_neither_shuffled_nor_augmented() -> None:
    made = splits()
    assert_equal(batches(made.validation, 5), [images(4, 1)])
    assert made.test is not None
    assert_equal(batches(made.test, 5), [images(3, 2)])


@pytest.mark.parametrize("augment", [(), AUGMENTATIONS])
def test_element_spec_has_open_batch_axis_and_input_types(augment: Any) -> None:
    inputs, labels = splits(augment=augment).train.epoch(0).element_spec
    assert inputs.shape.as_list() == [None, 6, 6, 3]
    assert labels.shape.as_list() == [None]
    assert (inputs.dtype.name, labels.dtype.name) == ("uint8", "int64")


def test_first_step_at_the_end_gives_empty_epoch() -> None:
    split = splits().train
    assert batches(split, 0, split.steps_per_epoch) == []


def test_order_depends_only_on_seed() -> None:
    split = splits().train
    assert isinstance(split, IndexedSplit)
    other = replace(split, batching=replace(split.batching, seed=8))
    assert not np.array_equal(split.order(0), other.order(0))
    np.testing.assert_array_equal(split.order(0), splits().train.order(0))  # type: ignore[attr-defined]
