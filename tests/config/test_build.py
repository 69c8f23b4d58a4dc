"""From a config node to the object it names."""

from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.config.build import build, build_each
from experiments.errors import ConfigError, DataError


def node(values: dict[str, Any]) -> DictConfig:
    """As `model` of a larger config."""
    return cast(DictConfig, OmegaConf.create({"seed": 7, "model": values})["model"])


def raises_data_error() -> None:
    raise DataError("said by the part itself")


def test_values_and_runtime_arguments_reach_the_target() -> None:
    built = build(node({"_target_": "types.SimpleNamespace", "a": 1, "b": "${seed}"}), c=(1, 2))
    assert built == SimpleNamespace(a=1, b=7, c=(1, 2))


def test_a_runtime_argument_wins() -> None:
    assert build(node({"_target_": "types.SimpleNamespace", "a": 1}), a=2).a == 2


def test_containers_are_plain() -> None:
    built = build(node({"_target_": "types.SimpleNamespace", "sizes": [1, 2], "names": {"x": [3]}}))
    assert (type(built.sizes), type(built.names), type(built.names["x"])) == (list, dict, list)


def test_objects_of_the_runtime_stay_themselves() -> None:
    shape, path = (3, 4), PurePosixPath("x")
    built = build(node({"_target_": "types.SimpleNamespace"}), shape=shape, path=path)
    assert built.shape is shape
    assert built.path is path


def test_nested_targets_are_built() -> None:
    built = build(
        node({"_target_": "types.SimpleNamespace", "part": {"_target_": "fractions.Fraction", "numerator": 2}})
    )
    assert built.part == Fraction(2)


def test_a_named_dict_keeps_its_order_and_leaves_out_null() -> None:
    entry = {"_target_": "fractions.Fraction"}
    nodes = node({"b": {**entry, "numerator": 2}, "gone": None, "a": {**entry, "numerator": 1}})
    assert build_each(nodes) == [2, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"_target_": "nowhere.thing"},
            "model._target_=nowhere.thing cannot be used: No module named 'nowhere'. Expected the dotted name of a "
            "function or class. Run from the folder that contains its module, or install it.",
        ),
        ({"_target_": "fractions.Fractoin"}, "model._target_=fractions.Fractoin cannot be used: "),
        ({"_target_": "fractions"}, "model._target_=fractions cannot be used: Expected a callable target"),
        (
            {"_target_": "fractions.Fraction", "denominator": 0.5, "numerator": 1},
            "model: fractions.Fraction refuses its values: both arguments should be Rational instances",
        ),
        ({"_target_": "fractions.Fraction", "colour": 1}, "model: fractions.Fraction refuses its values: "),
    ],
)
def test_what_cannot_be_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(node(values))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_words_of_a_part_stay_its_own() -> None:
    with pytest.raises(DataError, match=r"^said by the part itself$"):
        build(node({"_target_": f"{__name__}.raises_data_error"}))
