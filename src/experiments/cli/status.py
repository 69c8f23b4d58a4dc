"""The status line of a command; imports nothing heavy, as loading TensorFlow is one of the things it shows."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal


class Status:
    """Shows what a command is doing. This one shows nothing."""

    def update(self, text: str) -> None:
        """Shows `text` until the next call."""

    def stop(self) -> None:
        """Removes the line, e.g. before output that shows progress itself."""


class PlainStatus(Status):
    """Prints a line for each update, for pipes and log files."""

    def update(self, text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)


class SpinnerStatus(Status):
    """Keeps one line with a spinner on a terminal. spinner: a `rich.status.Status`."""

    def __init__(self, spinner: Any) -> None:
        self._spinner = spinner

    def update(self, text: str) -> None:
        self._spinner.update(f"{text} ...")
        self._spinner.start()

    def stop(self) -> None:
        self._spinner.stop()


SILENT = Status()


def display(mode: str) -> Literal["bar", "plain", "none"]:
    """What `auto` means here: a bar on a terminal, plain lines elsewhere; `terminal` is silent elsewhere."""
    if mode == "bar" or (mode in ("auto", "terminal") and sys.stderr.isatty()):
        return "bar"
    return "plain" if mode in ("auto", "plain") else "none"


@contextmanager
def status_line(mode: str) -> Iterator[Status]:
    """Yields the status line that `progress=mode` asks for."""
    match display(mode):
        case "bar":
            from rich.console import Console

            # A copy, as file descriptor 2 is redirected while TensorFlow writes its start-up messages.
            with os.fdopen(os.dup(2), "w") as terminal:
                status = SpinnerStatus(Console(file=terminal).status(""))
                try:
                    yield status
                finally:
                    status.stop()
        case "plain":
            yield PlainStatus()
        case _:
            yield SILENT
