"""Logs the metrics of a run to the tracker: Keras's, and those by which users choose a run."""

import resource
import sys
import time
from collections.abc import Mapping

import keras

from experiments.checkpoints.best import improves
from experiments.data.base import Split
from experiments.loops.callback_list import passes
from experiments.tracking.base import Tracker

Logs = Mapping[str, float]
MB_OF_RSS = 1e-6 if sys.platform == "darwin" else 1024e-6


class TrackMetrics(keras.callbacks.Callback):
    """Logs metrics to the tracker: per epoch under Keras's names, and every `every_n_steps` batches as `batch/...`.

    Adds `best_<metric>` at each epoch that is the best in the history so far, and times since `began`, and memory.
    """

    def __init__(
        self, tracker: Tracker, train: Split, metric: str, mode: str, *, every_n_steps: int | None, began: float
    ) -> None:
        super().__init__()
        self._tracker, self._train = tracker, train
        self._every_n_steps, self._metric, self._mode = every_n_steps, metric, mode
        self._steps_before_epoch = self._begun = 0
        self._started, self._waits = began, True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._steps_before_epoch = epoch * self.params["steps"]
        self._marks = [(0, time.monotonic())]

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._begun = self._steps_before_epoch + batch
        if len(self._marks) == 1:
            self._marks.append((batch, time.monotonic()))

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        step = self._steps_before_epoch + batch + 1
        if self._waits:
            self._waits = False
            self._tracker.log_metrics({"seconds_to_first_step": time.monotonic() - self._started}, step=1)
        # Marks: start of the epoch and of its first step, end of that step, which compiles the model, and of the last.
        self._marks[3:] = [(batch + 1, time.monotonic())]
        if passes(self._begun, step, self._every_n_steps):
            self._tracker.log_metrics({f"batch/{name}": value for name, value in (logs or {}).items()}, step=step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**(logs or {}), "learning_rate": learning_rate}
        if improves(values[self._metric], self.model.history.history.get(self._metric, [])[:epoch], self._mode):
            values |= {f"best_{self._metric}": values[self._metric], "best_epoch": epoch + 1}
        values["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MB_OF_RSS
        if len(self._marks) > 2:
            (first, start), (last, end) = self._marks[-2:]
            size, most = self._train.batch_size, self._train.spec.num_examples
            values["examples_per_second"] = (min(last * size, most) - first * size) / max(end - start, 1e-9)
            if self._marks[1][0] == 0:  # A resumed run repeats only a part of its first epoch.
                values["seconds_per_epoch"] = time.monotonic() - self._marks[0][1]
        self._tracker.log_metrics(values, step=epoch + 1)
