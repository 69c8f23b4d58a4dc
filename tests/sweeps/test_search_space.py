"""Dimensions and combinations of a sweep, defined by overrides."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from experiments.errors import ConfigError
from experiments.sweeps.samplers import distribution
from experiments.sweeps.search_space import (
    Dimension,
    cell_overrides,
    dimensions,
    fixed,
    grid,
    is_excluded,
    refuse_unmatched,
)


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
    ("override", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=tag(log,interval(1e-5,1e-1))", FloatDistribution(1e-5, 1e-1, log=True)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=tag(log,int(interval(1,9)))", IntDistribution(1, 9, log=True)),
    ],
)
def test_interval_is_integer_or_logarithmic(override: str, expected: BaseDistribution) -> None:
    (found,) = space(override)
    assert distribution(found) == expected
    assert found.overrides(3) == ("a=3",)


RULES = [
    # override, rule as typed, numbers of the excluded choices
    ("a=1,2", "{a: 1}", [0]),
    ("a=1,2", "{a: 1.0}", [0]),
    ("a=1,2", "{a: '1'}", None),
    ("a=1,2", "{a: true}", None),
    ("a=1,2", "{a: 3}", None),
    ("a=1,2", "{}", None),
    ("a=1e-3,2", "{a: 0.001}", [0]),
    ("a=0.001,2", "{a: 1e-3}", [0]),
    ("a=1_0,2", "{a: 10}", [0]),
    ("a=10,2", "{a: 1_0}", [0]),
    ("a=007,7", "{a: 007}", [0]),
    ("a=007,7", "{a: 7}", [1]),
    ("a=001,1", "{a: '001'}", [0]),
    ("a='1',1", "{a: '1'}", [0]),
    ("a='1',1", "{a: 1}", [1]),
    ("a='1_0',x", "{a: 1_0}", None),
    ("a='1_0',x", "{a: '1_0'}", [0]),
    ("a=null,x", "{a: null}", [0]),
    ("a=null,'null'", "{a: 'null'}", [1]),
    ("a=true,1", "{a: true}", [0]),
    ("a=true,1", "{a: 1}", [1]),
    ("a=True,false", "{a: false}", [1]),
    ("a='true',true", "{a: 'true'}", [0]),
    ("a=[1,2],[3]", "{a: [1,2]}", [0]),
    ("a=[1,2],[3]", "{a: [2,1]}", None),
    ("a=[flip,rot90],none", "{a: [flip,rot90]}", [0]),
    ("a={x: 1},{x: 2}", "{a: {x: 2}}", [1]),
    ("a='a b',c", "{a: 'a b'}", [0]),
    ('a="c",d', "{a: c}", [0]),
    (r"a=a\,b,c", "{a: 'a,b'}", [0]),
    ("a=' x',x", "{a: x}", [1]),
    ("+a=1,2", "{a: 2}", [1]),
    ("a=range(3)", "{a: 2}", [2]),
    ("a=choice(x,true)", "{a: true}", [1]),
    ("a=nan,1", "{a: nan}", None),
    ("a=-1,+1", "{a: -1}", [0]),
]


@pytest.mark.parametrize(("override", "rule", "expected"), RULES)
def test_rule_excludes_values_as_hydra_parses_them(override: str, rule: str, expected: list[int] | None) -> None:
    (dimension,) = space(override)
    typed = OverridesParser.create().parse_override(f"sweep.exclude=[{rule}]").value()
    rules: Any = OmegaConf.create(typed)  # type: ignore[arg-type]
    if expected is None:
        with pytest.raises(ConfigError, match=r"^the rule .* of sweep.exclude matches no job: expected a=.*, received"):
            refuse_unmatched(rules, [dimension])
    else:
        refuse_unmatched(rules, [dimension])
    excluded = [number for number, choice in enumerate(dimension.choices) if is_excluded(rules, choice)]
    assert excluded == (expected or [])


@pytest.mark.parametrize(
    ("rules", "job", "expected"),
    [
        ([], ["a=1"], False),
        ([{"a": 1}], ["a=1", "b=2"], True),
        ([{"a": 1, "b": 3}], ["a=1", "b=2"], False),
        ([{"a": 1, "b": 3}, {"b": 2}], ["a=1", "b=2"], True),
        ([{"a": None}], ["b=2", "~a"], False),
        ([{"model": "cnn"}], ["model=cnn"], True),
    ],
)
def test_rule_excludes_jobs_with_all_its_values(rules: list[dict[str, object]], job: list[str], expected: bool) -> None:
    assert is_excluded(rules, job) is expected


@pytest.mark.parametrize(
    ("typed", "zipped", "rule", "matches"),
    [
        (["a=1,2", "b=3,4"], [], {"a": 1, "b": 4}, True),
        (["a=1,2", "b=3,4"], [], {"a": 1, "b": 1}, False),
        (["a=1,2", "b=3,4"], [["a", "b"]], {"a": 1, "b": 3}, True),
        (["a=1,2", "b=3,4"], [["a", "b"]], {"a": 1, "b": 4}, False),
        (["a=1,2", "b=interval(0,1)"], [], {"a": 1, "b": 0.5}, True),
        (["a=1,2", "b=interval(0,1)"], [], {"a": 3, "b": 0.5}, False),
    ],
)
def test_rule_that_matches_no_combination_is_refused(
    typed: list[str], zipped: list[list[str]], rule: dict[str, object], matches: bool
) -> None:
    with nullcontext() if matches else pytest.raises(ConfigError, match=r"^the rule [^\n]* matches no job: [^\n]*$"):
        refuse_unmatched([rule], space(*typed, zipped=zipped))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=007,7", ["007", 7]),
        ("a=001,1", ["001", 1]),
        ("a=1_0,2", [10, 2]),  # Hydra parses it as a number
        ("a='1_0','2024_01'", ["'1_0'", "'2024_01'"]),
        ("a=1e-3,100.0", [0.001, 100.0]),
        ("a=1e-9,1e30", [1e-9, 1e30]),
        ("a=-1,+2", [-1, 2]),
        ("a=nan,infinity", ["nan", "infinity"]),
        ("a=null,True", ["null", "True"]),
        ("a=0,0x1", [0, "0x1"]),
    ],
)
def test_label_is_number_only_if_hydra_parses_a_number(override: str, expected: list[object]) -> None:
    (found,) = space(override)
    assert found.labels == expected
    assert list(map(type, found.labels)) == list(map(type, expected))
    assert [found.overrides(label) for label in found.labels] == list(found.choices)


def test_fixed_overrides_exclude_sweep_keys() -> None:
    overrides = OverridesParser.create().parse_overrides(["a=1,2", "epochs=3", "sweep.workers=2", "~b"])
    assert fixed(overrides) == ["epochs=3", "~b"]
