"""The interface of training loops. `fit` and `tape` are interchangeable."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import keras

from experiments.data.base import Splits

History = dict[str, list[float]]
"""Metric name -> one value per finished epoch."""


@dataclass(frozen=True)
class Position:
    """The next batch to train on: `step` batches of `epoch` are done. If all are done, only validation is left.

    `history` contains the finished epochs. `stopped` is True if a callback has ended the training at this position.
    """

    epoch: int = 0
    step: int = 0
    history: History = field(default_factory=dict, hash=False)
    stopped: bool = False


class Loop(Protocol):
    def __call__(
        self,
        model: keras.Model,
        splits: Splits,
        *,
        epochs: int,
        start: Position,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> History: ...
