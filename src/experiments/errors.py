"""Errors shown to the user as one line, with exit status 1."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from hydra.errors import CompactHydraException

AS_WRITTEN = "the content as experiments wrote it. Restore it, or choose another run"


class ExperimentError(CompactHydraException):
    """An error whose message states what is wrong, what was expected, what was received and what to do."""


class ConfigError(ExperimentError):
    """An invalid value, key or combination of values in the composed config."""


class DataError(ExperimentError):
    """Files, arrays or labels that cannot be used for training."""


class ModelError(ExperimentError):
    """An architecture, a weights file and an input shape that do not fit each other."""


class TrainingError(ExperimentError):
    """Training that cannot continue."""


class StoppedRun(ExperimentError):  # noqa: N818 - an intended end is not an error
    """A run that was ended on purpose before its last epoch. It is tracked as KILLED, with the reason."""


class TrackingError(ExperimentError):
    """A tracking store that cannot be reached or does not contain the requested data."""


class Rejected(TrackingError):  # noqa: N818
    """The store understood a request and refused it. Sending it again cannot succeed."""


@contextmanager
def reading(what: str, expected: str = AS_WRITTEN) -> Iterator[None]:
    """Raises TrackingError, in one line, for any error that wrong content of `what`, a record, causes in the block."""
    try:
        yield
    except Exception as error:  # libraries raise almost any type of error for wrong content
        if isinstance(error, ExperimentError) and not isinstance(error, Rejected):
            raise
        kind = "" if type(error) in (ValueError, Rejected) else f"{type(error).__name__}: "
        raise TrackingError(
            f"{what} cannot be used: {kind}{' '.join(str(error).split())[:300].rstrip('.')}. Expected {expected}; "
            "HYDRA_FULL_ERROR=1 shows where this came from."
        ) from error


def near(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown `name`: the nearest known name, or all known names."""
    names = sorted(known)
    return close_to(name, names) or listed(names)


def close_to(name: str, known: Iterable[str]) -> str:
    """Returns a question that suggests the nearest name in `known`, or an empty string if none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""


def listed(known: Iterable[str]) -> str:
    return f"Known: {', '.join(known)}."


def first_few(names: Iterable[str], most: int = 3) -> str:
    """Joins the first `most` names and adds the number of the others."""
    every = list(names)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def pluralized(count: int, noun: str) -> str:
    """Returns a count with its noun, such as `1 image`, `3 images` or `2 classes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"
