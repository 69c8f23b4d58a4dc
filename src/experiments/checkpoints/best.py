"""The weights of the best epoch by the monitored metric: a sealed checkpoint in a folder of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments.checkpoints.layout import BEST
from experiments.checkpoints.store import commit, find, read_state, remove_uncommitted, uncommit, verify
from experiments.checkpoints.training_state import assign, restore_weights, values, weights
from experiments.errors import ExperimentError
from experiments.loops.evaluation import Predictions


class Best(NamedTuple):
    """The best value of the monitored metric, and the epoch (from 0) that reached it."""

    value: float
    epoch: int


class Unwritten(NamedTuple):
    """What is the best and not on disk yet. values: of all variables of the model; None: those in it now."""

    best: Best
    values: list[np.ndarray] | None
    predictions: Predictions | None


class BestWeights:
    """Those of `model`, in `best/` below `checkpoints`; metric: whose best value it is."""

    def __init__(self, checkpoints: Path, model: keras.Model, metric: str) -> None:
        self._folder = checkpoints / BEST
        self._model, self._metric = model, metric
        self._unwritten: Unwritten | None = None

    @cached_property
    def _manager(self) -> tf.train.CheckpointManager:
        """Made once the model has its variables."""
        return tf.train.CheckpointManager(weights(self._model), str(self._folder), 1, checkpoint_name=BEST)

    def keep(self, best: Best, predictions: Predictions | None, *, at_once: bool) -> None:
        """What is in the model now, to be written. predictions: of the validation split.

        at_once: before anything changes it, so that it need not be copied.
        """
        self._unwritten = Unwritten(best, None if at_once else values(self._model.variables), predictions)

    def write(self) -> None:
        """What was kept."""
        if self._unwritten is None:
            return
        best, kept, predictions = self._unwritten
        uncommit(self._prefix(best.epoch))
        with self._holding(kept):
            prefix = self._manager.save(checkpoint_number=best.epoch + 1)
        predicted = None if predictions is None else predictions._asdict()
        commit(prefix, {"metric": self._metric, **best._asdict(), "predictions": predicted})
        remove_uncommitted(self._folder, BEST)
        self._unwritten = None

    @contextmanager
    def _holding(self, kept: list[np.ndarray] | None) -> Iterator[None]:
        """TensorFlow writes what is in the variables, which may have gone on since."""
        if kept is None:
            yield
            return
        now = values(self._model.variables)
        assign(self._model.variables, kept)
        yield
        assign(self._model.variables, now)

    def restore(self, model: keras.Model, best: Best) -> None:
        """Raises ExperimentError where the files are not what was written."""
        problem = verify(self._prefix(best.epoch))
        if problem is not None:
            raise ExperimentError(
                f"'{self._prefix(best.epoch)}' is damaged: {problem}. Expected the best weights as they were written. "
                "Go on with resume=last, which trains again what is lost."
            )
        restore_weights(model, str(self._prefix(best.epoch)))

    def verify(self, best: Sequence[float] | None) -> str | None:
        """What is wrong with the best weights that a training checkpoint knows of, and cannot do without.

        Nothing where a later epoch was the best when the process ended, whose weights took the place of these: that
        epoch runs again, and becomes the best again.
        """
        if best is None or self._is_replaced(best):
            return None
        problem = verify(self._prefix(best[1]))
        return problem and f"its best weights: {problem}"

    def on_disk(self, best: Sequence[float] | None) -> Best | None:
        """None where the weights were replaced."""
        return None if best is None or self._is_replaced(best) else Best(best[0], int(best[1]))

    def _is_replaced(self, best: Sequence[float]) -> bool:
        numbers = (path.name.removeprefix(f"{BEST}-").partition(".")[0] for path in self._folder.glob(f"{BEST}-*.*"))
        return any(number.isdigit() and int(number) > best[1] + 1 for number in numbers)

    def _prefix(self, epoch: float) -> Path:
        return self._folder / f"{BEST}-{epoch + 1:.0f}"


def best_predictions(directory: Path) -> Predictions:
    """What the model of the best epoch said of the validation split, kept when that epoch was validated."""
    return Predictions(**read_state(Path(find(directory, BEST)))["predictions"])
