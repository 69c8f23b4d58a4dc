"""Typed fields that carry their range, checked by `check` before anything heavy is imported."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

RULE = "rule"


@dataclass
class Target:
    """An option that names what is built from it; others add its arguments."""

    _target_: str = MISSING


@dataclass(frozen=True)
class Rule:
    """A test of one value and the words for what it expects, as in 'expected a number above 0'."""

    accepts: Callable[[Any], bool]
    expected: str


def _field(accepts: Callable[[Any], bool], expected: str) -> Any:
    return field(default=MISSING, metadata={RULE: Rule(accepts, expected)})


def at_least(minimum: float) -> Any:
    return _field(lambda value: value >= minimum, f"{minimum:g} or more")


def above(minimum: float) -> Any:
    return _field(lambda value: value > minimum, f"a number above {minimum:g}")


def at_most(maximum: float) -> Any:
    """0 <= value <= maximum."""
    return _field(lambda value: 0 <= value <= maximum, f"a number from 0 to {maximum:g}")


def fraction() -> Any:
    """0 <= value < 1: a dropout rate, a momentum, a share of examples."""
    return _field(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")


def share() -> Any:
    """0 < value <= 1: what is kept of something."""
    return _field(lambda value: 0 < value <= 1, "a number above 0, at most 1")


def one_of(*options: str | int) -> Any:
    return _field(lambda value: value in options, f"one of {', '.join(map(str, options))}")


def auto_or_at_least(minimum: int) -> Any:
    return _field(
        lambda value: value == "auto" or (isinstance(value, int) and value >= minimum),
        f"'auto' or a whole number of {minimum} or more",
    )


def auto_or_bool() -> Any:
    return _field(lambda value: value == "auto" or isinstance(value, bool), "auto, true or false")


def sizes(length: int) -> Any:
    """`length` whole numbers of at least 1, e.g. [height, width]."""
    return _field(
        lambda value: len(value) == length and all(size >= 1 for size in value),
        f"{length} whole numbers of 1 or more, such as [{', '.join(['160'] * length)}]",
    )


def each_at_least(minimum: int) -> Any:
    """A list of any length, none included."""
    return _field(lambda value: all(item >= minimum for item in value), f"a list of whole numbers of {minimum} or more")


def first_and_last() -> Any:
    """A range of steps, both ends included."""
    return _field(
        lambda value: len(value) == 2 and 0 <= value[0] <= value[1],
        "the first and the last step, such as [5, 10]",
    )
