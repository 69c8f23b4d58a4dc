"""The callback that writes checkpoints, from which a run is resumed, evaluated or used for predictions."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from experiments.checkpoints.best import Best, BestWeights, improves
from experiments.checkpoints.callback_state import (
    State,
    Watch,
    get_state,
    keeps_state,
    random_state,
    set_random_state,
    set_state,
)
from experiments.checkpoints.store import commit, latest_valid, list_until, remove_uncommitted, save
from experiments.checkpoints.training_state import TrainingState
from experiments.cli.signals import Interruption
from experiments.errors import ExperimentError, reading
from experiments.loops.averages import averaged
from experiments.loops.base import History, Position
from experiments.loops.callback_list import passes
from experiments.loops.evaluation import Predictions

OVERHEAD = 0.01
"""Largest share of the time for writing if `every_epoch` is "auto". A resumed run repeats lost epochs bit for bit."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointOptions:
    """Options of the `checkpoint` group, and the monitored metric with its mode, "min" or "max".

    `every_epoch` is True, False, or "auto": only if writing takes at most OVERHEAD of the time. The last epoch always
    ends in a checkpoint. `upload_every_n_minutes` is for `CheckpointUploads`.
    """

    metric: str
    mode: str
    max_to_keep: int
    name: str
    every_epoch: bool | str
    every_n_steps: int | None
    every_n_minutes: float | None
    upload_every_n_minutes: float | None = None


class Checkpoints(keras.callbacks.Callback):
    """Saves the training state, and keeps the newest checkpoints and the weights of the best epoch.

    Must be the last callback, so that it saves the state the others have reached. `restore` and `restore_best` read
    the files.

    `model` is the model that is trained. `full_model` is the model whose head it is, if it is a head.
    `observers` are the other callbacks by name. Their state is part of a checkpoint.
    `interruption`: after a signal, the callback saves a checkpoint at the end of the step and raises SystemExit.
    `committing` is called before a checkpoint is committed, `saved` with the path prefix of each new checkpoint.
    """

    def __init__(
        self,
        directory: Path,
        options: CheckpointOptions,
        *,
        model: keras.Model,
        full_model: keras.Model | None = None,
        observers: Mapping[str, keras.callbacks.Callback] | None = None,
        interruption: Interruption | None = None,
        committing: Callable[[], None] = lambda: None,
        saved: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.best: Best | None = None
        self._options = options
        self._head, self._full_model = model, full_model or model
        self._observers = dict(observers or {})
        self._interruption = interruption or Interruption()
        self._committing, self._saved = committing, saved
        self._restored: State = {}
        self._history: History = {}
        self._epoch = self._first_step = 0
        self._metric_values: list[np.ndarray] = []
        self._predictions: Predictions | None = None
        self._best_weights = BestWeights(directory, self._full_model, options.metric)
        self._save_seconds = self._total_save_seconds = 0.0

    @cached_property
    def _state(self) -> TrainingState:
        """Creates the state on first use, when model, optimizer and metrics have their variables."""
        return TrainingState(self._head, self._full_model)

    def restore(self) -> Position:
        """Restores model and optimizer from the latest valid checkpoint; returns its position, or the beginning.

        A checkpoint whose best weights are corrupt is not valid, because the epochs after it do not recreate them.
        The state of the callbacks is restored when training begins, because `on_train_begin` resets callbacks.
        """
        found = latest_valid(self.directory, lambda state: self._best_weights.verify(state["best"]))
        remove_uncommitted(self.directory, self._options.name)
        list_until(self.directory, found and found.prefix)
        if found is None:
            return Position()
        self._state.restore(found.prefix)
        self._state.set_replica_values(found.state["replicas"])
        self._metric_values = self._state.metric_values()
        self._restored, epoch, step = found.state, int(found.state["epoch"]), int(found.state["step"])
        if min(epoch, step) < 0:
            raise ValueError(f"its position is epoch {epoch}, step {step}")
        self._history = {name: list(map(float, each)) for name, each in found.state["history"].items()}
        self.best = self._best_weights.on_disk(found.state["best"])
        return Position(epoch, step, self._history, found.state["stopped"])

    def restore_best(self, model: keras.Model) -> Best:
        """Restores the best epoch's weights into `model`. Raises ExperimentError if they are absent or corrupt."""
        if self.best is None:
            raise ExperimentError(
                f"{self._options.metric} was never a finite number, so there is no best epoch. "
                "Lower optimizer.learning_rate or set optimizer.global_clipnorm=1."
            )
        self._best_weights.restore(model, self.best)
        return self.best

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._restored:
            with reading(f"the state of the callbacks in '{self.directory}'"):
                for name, kept in self._restored["observers"].items():
                    if name in self._observers:
                        set_state(self._observers[name], kept)
                set_random_state(self._restored["random"])
        self._watch: Watch | None = Watch(self._observers)
        self._training_since = self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        if self._restored and self._restored["step"]:
            # Both loops have just reset the metrics. A resumed epoch continues with the values after its first steps.
            self._state.set_metric_values(self._metric_values)
        self._restored = {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._first_step = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self._head.stop_training:
            return  # The epoch ends after this step, and `on_epoch_end` saves a checkpoint.
        if self._is_due(batch + 1) or self._interruption.signal is not None:
            self._save(self._epoch, batch + 1)
        self._interruption.end()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._metric_values = self._state.metric_values()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self._interruption.signal is not None:
            # All steps of the epoch are done. A resumed run repeats validation, so the metrics are saved as before it.
            self._state.set_metric_values(self._metric_values)
            self._save(self._epoch, self.params["steps"], averaged_now=True)
        self._interruption.end()

    def on_validation_predictions(self, epoch: int, predictions: Predictions) -> None:  # noqa: ARG002
        self._predictions = predictions

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        began = time.monotonic()
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        value = (logs or {})[self._options.metric]
        due = self._ends_in_checkpoint(epoch)
        if improves(value, [self.best.value] if self.best else [], self._options.mode):
            self.best = Best(value, epoch)
            self._best_weights.keep(self.best, self._predictions, at_once=due)
        self._total_save_seconds += time.monotonic() - began
        if due or self._interruption.signal is not None:
            self._save(epoch + 1, 0, averaged_now=True)
        self._interruption.end()

    def _ends_in_checkpoint(self, epoch: int) -> bool:
        if self._options.every_epoch is True or self._head.stop_training or epoch + 1 == self.params["epochs"]:
            return True
        elapsed = time.monotonic() - self._training_since
        has_time = self._save_seconds == 0 or self._total_save_seconds + self._save_seconds <= OVERHEAD * elapsed
        return self._options.every_epoch == "auto" and has_time

    def _is_due(self, step: int) -> bool:
        if passes(self._first_step, step, self._options.every_n_steps):
            return True
        minutes = self._options.every_n_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _save(self, epoch: int, step: int, *, averaged_now: bool = False) -> None:
        """Writes a checkpoint. The previous checkpoint stays the latest until this one is committed."""
        began = time.monotonic()
        self._best_weights.write()  # Comes first, because the checkpoint refers to the best weights.
        self._state.epoch.assign(epoch)
        self._state.step.assign(step)
        # Not the optimizer's iterations: with gradient accumulation, they do not count every batch.
        number = epoch * self.params["steps"] + step
        # The best weights are the averages, which have replaced the weights now. A checkpoint contains both.
        with averaged(self._head) if averaged_now else nullcontext():
            prefix = save(self._state.checkpoint, self.directory, number, self._options.name, self._options.max_to_keep)
            self._committing()
            commit(prefix, self._metadata(epoch, step))
        remove_uncommitted(self.directory, self._options.name)
        self._saved(prefix)
        self._warn_unsaved_state()
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began
        self._total_save_seconds += self._save_seconds

    def _metadata(self, epoch: int, step: int) -> State:
        return {
            "epoch": epoch,
            "step": step,
            "stopped": bool(self._head.stop_training),
            "best": self.best,
            "history": self._history,
            "observers": {name: get_state(each) for name, each in self._observers.items() if keeps_state(each)},
            "random": random_state(),
            "replicas": self._state.replica_values(),
        }

    def _warn_unsaved_state(self) -> None:
        """Warns about state that callbacks do not save, once, when the first checkpoint is written."""
        unsaved = self._watch.unsaved_state() if self._watch is not None else {}
        self._watch = None
        for name, attributes in unsaved.items():
            text = "callbacks.%s keeps %s, which a resumed run would lose: give it get_state() and set_state(state)."
            logger.warning(text, name, ", ".join(attributes))
