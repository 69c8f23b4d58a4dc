"""What a command is busy with before and after training; imports nothing heavy, as loading TensorFlow is one stage."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Show = Callable[[str | None], None]
"""Says what begins now; None: nothing worth a line, or something that shows itself."""


def display(mode: str) -> Literal["bar", "plain", "none"]:
    """What `auto` means here: a bar on a terminal, plain lines elsewhere; `terminal` is silent elsewhere."""
    if mode == "bar" or (mode in ("auto", "terminal") and sys.stderr.isatty()):
        return "bar"
    return "plain" if mode in ("auto", "plain") else "none"


@contextmanager
def stages(mode: str) -> Iterator[Show]:
    """Yields the function that shows stages: one line with a spinner on a terminal, a line each as plain text."""
    match display(mode):
        case "bar":
            with _spinner() as show:
                yield show
        case "plain":
            yield _line
        case _:
            yield silent


def silent(name: str | None) -> None:
    """Shows nothing."""


def _line(name: str | None) -> None:
    if name is not None:
        print(f"{name} ...", file=sys.stderr, flush=True)


@contextmanager
def _spinner() -> Iterator[Show]:
    from rich.console import Console

    # A copy, as file descriptor 2 is turned away while TensorFlow writes its notes there.
    with os.fdopen(os.dup(2), "w") as terminal:
        status = Console(file=terminal).status("")

        def show(name: str | None) -> None:
            if name is None:
                status.stop()
            else:
                status.update(f"{name} ...")
                status.start()

        try:
            yield show
        finally:
            status.stop()
