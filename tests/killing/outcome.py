"""Result of a run that was started several times."""

from typing import NamedTuple

STATUS = {"TERM": 143, "INT": 130, "USR1": 138}
"""Exit status of a process that a signal has stopped: 128 plus the number of the signal."""


class Start(NamedTuple):
    """Exit status of a training, status of each run in the store, and seconds from the fault to the end."""

    status: int
    runs: list[str]
    seconds: float | None


class Outcome(NamedTuple):
    """All starts of a run, and a line for each difference from an uninterrupted run."""

    starts: list[Start]
    differences: list[str]
