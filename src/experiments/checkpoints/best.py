"""The weights of the epoch with the best monitored metric: a committed checkpoint in a separate folder."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments.checkpoints.layout import BEST
from experiments.checkpoints.store import commit, find, list_until, read_state, remove_uncommitted, save, verify
from experiments.checkpoints.training_state import assign, restore_weights, values, weights
from experiments.errors import ExperimentError
from experiments.loops.evaluation import Predictions


class Best(NamedTuple):
    """The best value of the monitored metric, and its epoch (from 0)."""

    value: float
    epoch: int


def improves(value: float, earlier: Iterable[float], mode: str) -> bool:
    """Returns True if `value` is finite and better than the earlier ones; the first of equal ones is best."""
    sign = 1 if mode == "max" else -1
    return math.isfinite(value) and all(sign * value > sign * other for other in filter(math.isfinite, earlier))


class BestWeights:
    """Keeps the best weights of `model` in `best/` below `checkpoints`. `metric` is the monitored metric."""

    def __init__(self, checkpoints: Path, model: keras.Model, metric: str) -> None:
        self._folder = checkpoints / BEST
        self._model, self._metric = model, metric
        # Best weights that are not on disk yet: None in place of the weights means the current ones of the model.
        self._unwritten: tuple[Best, list[np.ndarray] | None, Predictions | None] | None = None

    @cached_property
    def _checkpoint(self) -> tf.train.Checkpoint:
        """Creates the checkpoint on first use, when the model has its variables."""
        listed = tf.train.get_checkpoint_state(str(self._folder))
        list_until(self._folder, listed and listed.model_checkpoint_path)
        return weights(self._model)

    def keep(self, best: Best, predictions: Predictions | None, *, at_once: bool) -> None:
        """Marks the current weights as the best, to be written by `write`. `predictions` are for the validation split.

        `at_once` promises that `write` is called before the weights change, so that they are not copied.
        """
        self._unwritten = best, None if at_once else values(self._model.variables), predictions

    def write(self) -> None:
        """Writes the weights that `keep` has marked, if any."""
        if self._unwritten is None:
            return
        best, kept, predictions = self._unwritten
        with self._assigned(kept):
            prefix = save(self._checkpoint, self._folder, best.epoch + 1, BEST, max_to_keep=1)
        predicted = None if predictions is None else predictions._asdict()
        commit(prefix, {"metric": self._metric, **best._asdict(), "predictions": predicted})
        remove_uncommitted(self._folder, BEST)
        self._unwritten = None

    @contextmanager
    def _assigned(self, kept: list[np.ndarray] | None) -> Iterator[None]:
        """Assigns `kept` to the variables during the block, because TensorFlow saves the variables' current values."""
        if kept is None:
            yield
            return
        current = values(self._model.variables)
        assign(self._model.variables, kept)
        yield
        assign(self._model.variables, current)

    def restore(self, model: keras.Model, best: Best) -> None:
        """Restores the best weights into `model`. Raises ExperimentError if their files are corrupt."""
        problem = verify(self._prefix(best.epoch))
        if problem is not None:
            raise ExperimentError(
                f"'{self._prefix(best.epoch)}' is corrupt: {problem}. Expected the best weights as they were written. "
                "Set resume=last to repeat the training that is lost."
            )
        restore_weights(model, str(self._prefix(best.epoch)))

    def verify(self, best: Sequence[float] | None) -> str | None:
        """Returns the problem with the best weights that a training checkpoint refers to; None if there is none.

        Weights that were replaced by those of a later epoch are no problem. The process ended before that epoch's
        checkpoint, so the epoch is repeated and becomes the best again.
        """
        if best is None or self._is_replaced(best):
            return None
        problem = verify(self._prefix(best[1]))
        return problem and f"its best weights: {problem}"

    def on_disk(self, best: Sequence[float] | None) -> Best | None:
        """Returns `best`, or None if its weights were replaced by those of a later epoch."""
        return None if best is None or self._is_replaced(best) else Best(float(best[0]), int(best[1]))

    def _is_replaced(self, best: Sequence[float]) -> bool:
        numbers = (path.name.removeprefix(f"{BEST}-").partition(".")[0] for path in self._folder.glob(f"{BEST}-*.*"))
        return any(number.isdigit() and int(number) > best[1] + 1 for number in numbers)

    def _prefix(self, epoch: float) -> Path:
        return self._folder / f"{BEST}-{epoch + 1:.0f}"


def best_predictions(directory: Path) -> Predictions:
    """Returns the predictions for the validation split that were saved when the best epoch was validated."""
    return Predictions(**read_state(Path(find(directory, BEST)))["predictions"])
