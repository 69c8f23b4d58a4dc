"""What came of a run that was started again and again."""

from typing import NamedTuple

STATUS = {"TERM": 143, "INT": 130, "USR1": 138}
"""Of a process that a signal has stopped: 128 and the signal's number."""


class Start(NamedTuple):
    """One start of a training. status: of its process; runs: their states in the store; seconds: from fault to end."""

    status: int
    runs: list[str]
    seconds: float | None


class Outcome(NamedTuple):
    """differences: from an uninterrupted run, a line each."""

    starts: list[Start]
    differences: list[str]
