"""Typed fields with a description and a range, which `check` tests before anything heavy is imported."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from omegaconf import MISSING

RULE = "rule"
DESCRIPTION = "description"


OPTIONS: defaultdict[str, dict[str, type]] = defaultdict(dict)
"""Config group -> the dataclass of each of its options."""
Schema = TypeVar("Schema")


@dataclass_transform()
def option(*names: str) -> Callable[[type[Schema]], type[Schema]]:
    """Makes a class the dataclass of the options `names` of the config group after which its module is named."""

    def registered(schema: type[Schema]) -> type[Schema]:
        OPTIONS[schema.__module__.rpartition(".")[2]] |= dict.fromkeys(names, dataclass(schema))
        return schema

    return registered


@dataclass
class Target:
    """Base of every option that is built by calling a target; subclasses add the arguments of the target."""

    _target_: str = field(
        default=MISSING, metadata={DESCRIPTION: "Dotted name of the function or class that is called."}
    )


@dataclass(frozen=True)
class Rule:
    """A test of one value, and the text for the expected values, as in 'expected a number above 0'."""

    accepts: Callable[[Any], bool]
    expected: str


def described(description: str, default: Any = MISSING) -> Any:
    """A field that accepts every value of its type."""
    return field(default=default, metadata={DESCRIPTION: description})


def node(schema: type, description: str) -> Any:
    """A field that contains the keys of another dataclass."""
    return field(default_factory=schema, metadata={DESCRIPTION: description})


def _field(accepts: Callable[[Any], bool], expected: str, description: str) -> Any:
    return field(default=MISSING, metadata={RULE: Rule(accepts, expected), DESCRIPTION: description})


def at_least(minimum: float, description: str = "") -> Any:
    return _field(lambda value: minimum <= value < math.inf, f"{minimum:g} or more", description)


def above(minimum: float, description: str = "") -> Any:
    return _field(lambda value: minimum < value < math.inf, f"a number above {minimum:g}", description)


def at_most(maximum: float, description: str = "") -> Any:
    """0 <= value <= maximum."""
    return _field(lambda value: 0 <= value <= maximum, f"a number from 0 to {maximum:.12g}", description)


def fraction(description: str = "") -> Any:
    """0 <= value < 1, such as a dropout rate or a momentum."""
    return _field(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1", description)


def share(description: str = "") -> Any:
    """0 < value <= 1, such as the part of an image that is kept."""
    return _field(lambda value: 0 < value <= 1, "a number above 0, at most 1", description)


def one_of(*options: str | int, description: str = "") -> Any:
    return _field(lambda value: value in options, f"one of {', '.join(map(str, options))}", description)


def auto_or_at_least(minimum: int, description: str = "") -> Any:
    return _field(
        lambda value: value == "auto" or (isinstance(value, int) and value >= minimum),
        f"'auto' or a whole number of {minimum} or more",
        description,
    )


def auto_or_bool(description: str = "") -> Any:
    return _field(lambda value: value == "auto" or isinstance(value, bool), "auto, true or false", description)


def sizes(length: int, description: str = "") -> Any:
    """`length` whole numbers of at least 1, such as [height, width]."""
    return _field(
        lambda value: len(value) == length and all(size >= 1 for size in value),
        f"{length} whole numbers of 1 or more, such as [{', '.join(['160'] * length)}]",
        description,
    )


def each_at_least(minimum: int, description: str = "") -> Any:
    """A list of any length, which may be empty."""
    return _field(
        lambda value: all(item >= minimum for item in value),
        f"a list of whole numbers of {minimum} or more",
        description,
    )


def first_and_last(description: str = "") -> Any:
    """A range of steps, both ends included."""
    return _field(
        lambda value: len(value) == 2 and 0 <= value[0] <= value[1],
        "the first and the last step, such as [5, 10]",
        description,
    )
