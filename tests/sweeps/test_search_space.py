"""Dimensions and combinations of a sweep, defined by overrides."""

from collections.abc import Sequence

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import ConfigError
from experiments.sweeps.search_space import Dimension, cell_overrides, dimensions, fixed, grid, is_excluded


def space(*typed: str, zipped: Sequence[Sequence[str]] = ()) -> list[Dimension]:
    return dimensions(OverridesParser.create().parse_overrides(list(typed)), zipped)


def jobs(*typed: str, zipped: Sequence[Sequence[str]] = ()) -> list[str]:
    found = space(*typed, zipped=zipped)
    return [" ".join(cell_overrides(found, cell)) for cell in grid(found)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["epochs=3"], [""]),
        (["a=1,2"], ["a=1", "a=2"]),
        (["a=1,2", "epochs=3", "b=x,y"], ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]),
        (["a=range(1,4)"], ["a=1", "a=2", "a=3"]),
        (["a=choice(1e-3,1e-2)"], ["a=0.001", "a=0.01"]),
        (["+a=1,2"], ["+a=1", "+a=2"]),
        (["a=[1,2],[3]"], ["a=[1,2]", "a=[3]"]),
    ],
)
def test_grid_lists_combinations_with_last_key_fastest(typed: list[str], expected: list[str]) -> None:
    assert jobs(*typed) == expected


@given(st.lists(st.integers(2, 4), min_size=1, max_size=4))
def test_grid_size_is_product_of_numbers_of_choices(sizes: list[int]) -> None:
    typed = [f"key{number}={','.join(map(str, range(size)))}" for number, size in enumerate(sizes)]
    found = jobs(*typed)
    product = 1
    for size in sizes:
        product *= size
    assert len(found) == len(set(found)) == product


@pytest.mark.parametrize("typed", ["a=1,2,1", "a=1e-3,0.001", "a=x,x", "a=1,1.0"])
def test_duplicate_values_are_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"^a=\S+ would do the jobs of a=\S+ again: expected different values"):
        space(typed)


def test_duplicate_values_are_allowed_in_zip() -> None:
    assert jobs("a=1,1", "b=3,4", zipped=[["a", "b"]]) == ["a=1 b=3", "a=1 b=4"]


def test_zipped_keys_change_together() -> None:
    assert jobs("a=1,2", "c=x,y", "b=3,4", zipped=[["a", "b"]]) == [
        "a=1 b=3 c=x",
        "a=1 b=3 c=y",
        "a=2 b=4 c=x",
        "a=2 b=4 c=y",
    ]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            ["a=1,2", "b=3"],
            "sweep.zip=['a', 'b'] needs several values for each of its keys: expected KEY=A,B for all, found a. "
            "Add the values, or leave the key out of sweep.zip.",
        ),
        (
            ["a=1,2", "b=3,4,5"],
            "sweep.zip=['a', 'b'] needs equally many values for each key, received {'a': 2, 'b': 3}. "
            "Give them equally many.",
        ),
    ],
)
def test_invalid_zip_is_refused(typed: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        jobs(*typed, zipped=[["a", "b"]])
    assert str(refused.value) == line


def test_interval_is_refused_in_grid() -> None:
    with pytest.raises(ConfigError) as refused:
        jobs("a=interval(0,1)")
    assert str(refused.value) == (
        "a=interval(...) has no grid: expected choices or a range. "
        "List values, or set sweep.sampler=random or tpe and sweep.n_trials."
    )


@pytest.mark.parametrize(
    ("override", "integer", "log"),
    [
        ("a=interval(0,1)", False, False),
        ("a=tag(log,interval(1e-5,1e-1))", False, True),
        ("a=int(interval(1,9))", True, False),
    ],
)
def test_interval_is_integer_or_logarithmic(override: str, integer: bool, log: bool) -> None:
    (found,) = space(override)
    assert (found.integer, found.log) == (integer, log)
    assert found.overrides(3) == ("a=3",)


@pytest.mark.parametrize(
    ("rules", "job", "expected"),
    [
        ([], ["a=1"], False),
        ([{"a": 1}], ["a=1", "b=2"], True),
        ([{"a": 1, "b": 3}], ["a=1", "b=2"], False),
        ([{"a": 1, "b": 3}, {"b": 2}], ["a=1", "b=2"], True),
        ([{"a": 0.001}], ["a=1e-3"], True),
        ([{"model": "cnn"}], ["model=cnn"], True),
        ([{}], ["a=1"], False),
    ],
)
def test_rule_excludes_jobs_with_all_its_values(rules: list[dict[str, object]], job: list[str], expected: bool) -> None:
    assert is_excluded(rules, job) is expected


def test_fixed_overrides_exclude_sweep_keys() -> None:
    overrides = OverridesParser.create().parse_overrides(["a=1,2", "epochs=3", "sweep.workers=2", "~b"])
    assert fixed(overrides) == ["epochs=3", "~b"]
