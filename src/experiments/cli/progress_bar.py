"""A progress bar for long operations on a terminal; it does not appear for short ones."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PATIENCE = 2.0
"""Seconds before the bar appears."""


@contextmanager
def progress(description: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Yields a function that advances the bar by an amount of work."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(description, total=total)
    patient_until = time.monotonic() + PATIENCE

    def advance(amount: float) -> None:
        bar.advance(task, amount)
        if bar.console.is_terminal and not bar.live.is_started and time.monotonic() > patient_until:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
