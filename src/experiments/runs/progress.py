"""Displays the progress of a run as a bar or as plain lines."""

import html
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments.cli.status import display, notebook_output

Logs = Mapping[str, float]
WIDE = 100
"""Width of the terminal, in columns, from which the bar is long."""
SECONDS_PER_UPDATE = 0.2
"""Interval between updates of a notebook, which keeps each in a message."""
SECONDS_PER_LINE = 30.0
"""Interval between plain lines within an epoch."""


@dataclass(frozen=True)
class Size:
    """Size of a training; `steps` and `validation_steps` are per epoch."""

    epochs: int
    steps: int
    validation_steps: int
    batch_size: int


@contextmanager
def progress(mode: str, size: Size) -> Iterator[list[keras.callbacks.Callback]]:
    """Yields the callback for `auto`, `bar` or `plain`, and no callback for `none`. Removes the bar on errors too."""
    kinds: dict[str, type[Display]] = {"bar": Bar, "notebook": NotebookBar, "plain": PlainLines}
    kind = kinds.get(display(mode))
    shown = [] if kind is None else [kind(size)]
    try:
        yield [*shown]
    finally:
        for each in shown:
            each.stop()


def _metrics_text(logs: Logs | None, digits: int = 4) -> str:
    return "  ".join(f"{name} {_number(value, digits)}" for name, value in (logs or {}).items())


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"


def epoch_line(epoch: int, epochs: int, logs: Logs | None, note: str = "") -> str:
    """Returns the line of an epoch, counted from 0. Parts that belong together are joined by no-break spaces."""
    values = [f"{name}\u00a0{_number(value, 4)}" for name, value in (logs or {}).items()]
    return "  ".join(filter(None, [f"epoch\u00a0{epoch + 1}/{epochs}", *values, note.replace(" ", "\u00a0")]))


def fitted(line: str, width: int) -> str:
    """Breaks a line of `epoch_line` between its parts, and indents the rest."""
    return textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False).replace("\u00a0", " ")


class OneLine(ProgressColumn):
    """Shows the field `text` of a task, cut off at the edge of the terminal instead of wrapped."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")


class Display(keras.callbacks.Callback):
    """Base of the displays. Measures the images per second of an epoch, without the first step, which is traced."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self._size = size
        self._epoch = 0
        self._traced, self._speed = False, ""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        self._since, self._uncounted = time.monotonic(), 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        if self._traced:
            images = (batch + 1 - self._uncounted) * self._size.batch_size
            self._speed = f"{images / max(time.monotonic() - self._since, 1e-9):.0f} images/s"
        else:
            self._traced, self._since, self._uncounted = True, time.monotonic(), batch + 1

    def stop(self) -> None:
        """Removes a bar from the terminal."""


class Bar(Display):
    """Shows one bar for the entire run and prints a line above it for each epoch."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self._per_epoch = size.steps + size.validation_steps
        self._line = "tracing the first step"
        console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40 if console.width >= WIDE else 6),
            TimeRemainingColumn(compact=True),
            OneLine(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(f"epoch 1/{size.epochs}", total=size.epochs * self._per_epoch, text=self._line)

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._describe(f"step 0/{self._size.steps}", 0)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        self._line = f"{self._speed}  {_metrics_text(logs, digits=3)}".strip()
        self._describe(f"step {batch + 1}/{self._size.steps}", batch + 1)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._describe("validating", self._size.steps + min(batch + 1, self._size.validation_steps))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        line = epoch_line(self._epoch, self._size.epochs, logs, self._speed)
        self._bar.console.print(fitted(line, self._bar.console.width), highlight=False, markup=False)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self.stop()

    def stop(self) -> None:
        self._bar.stop()

    def _describe(self, doing: str, done: int) -> None:
        self._bar.update(
            self._task,
            completed=self._epoch * self._per_epoch + done,
            description=f"epoch {self._epoch + 1}/{self._size.epochs} {doing}",
            text=self._line,
        )


class NotebookBar(Display):
    """Shows a bar and a table of the epochs in the output of a notebook cell, which keeps the last state."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self._rows: list[dict[str, str]] = []
        self._shown = 0.0

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._cell = notebook_output()
        self._cell.update({"text/plain": "tracing the first step"}, raw=True)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        if time.monotonic() - self._shown > SECONDS_PER_UPDATE:
            self._show(f"step {batch + 1}/{self._size.steps}  {self._speed}  {_metrics_text(logs)}", batch + 1)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._rows.append({"epoch": str(epoch + 1)} | {key: _number(value, 4) for key, value in (logs or {}).items()})
        self._show(f"epoch {epoch + 1}/{self._size.epochs}", self._size.steps)

    def _show(self, text: str, step: int) -> None:
        self._shown, total = time.monotonic(), self._size.epochs * self._size.steps
        head = "".join(f"<th>{html.escape(name)}</th>" for name in (self._rows or [{}])[-1])
        rows = ("".join(f"<td>{value}</td>" for value in row.values()) for row in self._rows)
        table = "".join(f"<tr>{row}</tr>" for row in ([head, *rows] if self._rows else []))
        bar = f'<progress value="{self._epoch * self._size.steps + step}" max="{total}"></progress> {html.escape(text)}'
        self._cell.update({"text/html": f"{bar}<table>{table}</table>", "text/plain": text}, raw=True)


class PlainLines(Display):
    """Prints a line per epoch, and more in long epochs, for log files and pipes."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self._printed = time.monotonic()

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._print("tracing the first step ...")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        if time.monotonic() - self._printed > SECONDS_PER_LINE:
            step = f"step {batch + 1}/{self._size.steps}  {self._speed}"
            self._print(epoch_line(self._epoch, self._size.epochs, logs, step))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._print(epoch_line(self._epoch, self._size.epochs, logs, self._speed))

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else len(line) + 1
        print(fitted(line, width), file=sys.stderr, flush=True)
