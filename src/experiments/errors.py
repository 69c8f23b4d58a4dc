"""Errors meant for the person at the terminal: shown as one line, exit status 1."""

from collections.abc import Iterable
from difflib import get_close_matches

from hydra.errors import CompactHydraException


class ExperimentError(CompactHydraException):
    """What was wrong, what was expected, what was received and what to do, in one message."""


class ConfigError(ExperimentError):
    """A value, key or combination in the composed config that cannot work."""


class DataError(ExperimentError):
    """Files, arrays or labels that cannot be trained on."""


class ModelError(ExperimentError):
    """An architecture, a weights file or an input shape that do not fit each other."""


class TrainingError(ExperimentError):
    """A training that cannot go on."""


class StoppedRun(ExperimentError):  # noqa: N818 - an end that was wanted, no mistake
    """A run that was ended on purpose before its last epoch; its record says KILLED, and why."""


class TrackingError(ExperimentError):
    """A tracking store that cannot be reached or does not hold what was asked for."""


def near(name: str, known: Iterable[str]) -> str:
    """The rest of a message about an unknown `name`: the nearest known one, or all of them."""
    names = sorted(known)
    return close_to(name, names) or listed(names)


def close_to(name: str, known: Iterable[str]) -> str:
    """A question about the nearest of `known`; empty where none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""


def listed(known: Iterable[str]) -> str:
    return f"Known: {', '.join(known)}."


def first_few(names: Iterable[str], most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    every = list(names)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def pluralized(count: int, noun: str) -> str:
    """As in `1 image`, `3 images` or `2 classes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"
