"""What came of a run that was started again and again."""

from typing import NamedTuple


class Start(NamedTuple):
    """One start of a training. status: of its process; runs: their states in the store; seconds: from fault to end."""

    status: int
    runs: list[str]
    seconds: float | None


class Outcome(NamedTuple):
    """differences: from an uninterrupted run, a line each."""

    starts: list[Start]
    differences: list[str]
