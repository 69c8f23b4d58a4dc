"""Held-out examples depend only on names; a limit keeps the proportions of classes."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.sampling import held_out, position, stratified_subset

NAMES = [f"cat.{number}.jpg" for number in range(2000)]


def test_held_out_share_is_close_to_fraction() -> None:
    assert 150 < held_out(NAMES, 0.1).sum() < 250


def test_adding_files_moves_no_file_between_splits() -> None:
    np.testing.assert_array_equal(held_out(NAMES, 0.1)[:500], held_out(NAMES[:500], 0.1))


def test_unicode_forms_of_a_name_have_equal_position() -> None:
    assert position(unicodedata.normalize("NFD", "häschen ü.jpg")) == position("häschen ü.jpg")


@given(st.lists(st.text(), min_size=2, unique_by=position), st.floats(0.001, 0.999))
def test_neither_split_is_empty(names: list[str], fraction: float) -> None:
    chosen = held_out(names, fraction)
    assert chosen.any()
    assert not chosen.all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 250))
def test_limit_keeps_class_proportions(labels: list[int], limit: int) -> None:
    array = np.array(labels, np.int64)
    kept = stratified_subset(array, limit)
    assert len(kept) == min(limit, len(labels))
    assert (np.diff(kept) > 0).all()
    share = np.bincount(array, minlength=5) * len(kept) / len(labels)
    assert (np.abs(np.bincount(array[kept], minlength=5) - share) <= 1.5).all()


def test_no_limit_keeps_all_examples() -> None:
    np.testing.assert_array_equal(stratified_subset(np.array([1, 0, 1]), None), [0, 1, 2])
