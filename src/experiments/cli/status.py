"""Status line of a command. Imports nothing heavy, because it is shown while TensorFlow is loaded."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any, Literal


class Status:
    """Status of a command; this base class shows nothing."""

    def update(self, text: str) -> None:
        """Shows `text` until the next update."""

    def stop(self) -> None:
        """Removes the line, for example before output that shows progress itself."""


class PlainStatus(Status):
    """Prints a line for each update, for pipes and log files."""

    def update(self, text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)


class SpinnerStatus(Status):
    """Shows a line with a spinner on a terminal. `spinner` is a `rich.status.Status`."""

    def __init__(self, spinner: Any) -> None:
        self._spinner = spinner

    def update(self, text: str) -> None:
        self._spinner.update(f"{text} ...")
        self._spinner.start()

    def stop(self) -> None:
        self._spinner.stop()


class NotebookStatus(Status):
    """Shows a line in the output of a notebook cell."""

    def __init__(self) -> None:
        self._line = notebook_output()

    def update(self, text: str) -> None:
        self._line.update({"text/plain": f"{text} ..."}, raw=True)

    def stop(self) -> None:
        self._line.update({"text/plain": ""}, raw=True)


def notebook_output() -> Any:
    """Returns a handle whose `update(data, raw=True)` replaces an output of the current notebook cell."""
    from IPython.display import display as show

    return show({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]


SILENT = Status()


def display(mode: str) -> Literal["bar", "notebook", "plain", "none"]:
    """Resolves `auto` to a bar on a terminal and to plain lines elsewhere, and `terminal` to a bar or to nothing.

    In a notebook, both resolve to a bar in the output of the cell.
    """
    if mode != "plain" and mode != "none" and in_notebook():
        return "notebook"
    # A dumb terminal, such as that of an editor, cannot move its cursor.
    if mode == "bar" or (mode in ("auto", "terminal") and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        return "bar"
    return "plain" if mode in ("auto", "plain") else "none"


def in_notebook() -> bool:
    """Returns True in the process of a Jupyter kernel, not in a terminal's IPython or a process started by a cell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


@contextmanager
def status_line(mode: str) -> Iterator[Status]:
    """Yields the status line for `progress=mode`. In the block, standard output, which is for answers, is stderr."""
    status, kind = SILENT, display(mode)
    with redirect_stdout(sys.stderr), ExitStack() as at_end:
        if kind == "bar":
            from rich.console import Console

            # A copy, because file descriptor 2 is redirected while TensorFlow writes its start-up messages.
            terminal = at_end.enter_context(os.fdopen(os.dup(2), "w"))
            status = SpinnerStatus(Console(file=terminal).status(""))
        elif kind == "notebook":
            status = NotebookStatus()
        elif kind == "plain":
            status = PlainStatus()
        at_end.callback(status.stop)
        yield status
