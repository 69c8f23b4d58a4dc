"""A callback that notes when the first training step has ended, and ends the process there."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import keras


class FirstStepEnd(keras.callbacks.Callback):
    """Writes the seconds since 1970 to the file `path`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        float((logs or {})["loss"])  # waits for the step itself
        Path(self._path).write_text(str(time.time()))
        os._exit(0)
