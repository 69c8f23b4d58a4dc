"""What a person at the terminal sees while a run trains."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Logs = Mapping[str, float]


def progress(mode: str, *, epochs: int, steps: int, batch_size: int) -> keras.callbacks.Callback | None:
    """The callback for `auto`, `bar`, `plain` or `none`; auto is a bar on a terminal, else plain lines."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "plain"
    if mode == "none":
        return None
    return (Bar if mode == "bar" else PlainLines)(epochs=epochs, steps=steps, batch_size=batch_size)


class Speed:
    """Images per second of the current epoch."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.start()

    def start(self) -> None:
        self._began = time.monotonic()

    def of(self, steps: int) -> float:
        return steps * self._batch_size / max(time.monotonic() - self._began, 1e-9)


def _words(logs: Logs | None) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())


class Bar(keras.callbacks.Callback):
    """One bar for the whole run."""

    def __init__(self, *, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self._epochs, self._steps = epochs, steps
        self._speed = Speed(batch_size)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("starting", total=epochs * steps, metrics="")
        self._epoch = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        self._speed.start()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._show(batch + 1, f"{self._speed.of(batch + 1):.0f} images/s  {_words(logs)}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._show(self._steps, _words(logs))

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._bar.stop()

    def _show(self, step: int, metrics: str) -> None:
        self._bar.update(
            self._task,
            completed=self._epoch * self._steps + step,
            description=f"epoch {self._epoch + 1}/{self._epochs} step {step}/{self._steps}",
            metrics=metrics,
        )


class PlainLines(keras.callbacks.Callback):
    """One line an epoch, for log files and pipes."""

    def __init__(self, *, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self._epochs, self._steps = epochs, steps
        self._speed = Speed(batch_size)
        self._images_per_second = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._speed.start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if batch + 1 == self._steps:
            self._images_per_second = self._speed.of(batch + 1)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        line = f"epoch {epoch + 1}/{self._epochs}  {self._images_per_second:.0f} images/s  {_words(logs)}"
        print(line, file=sys.stderr, flush=True)
