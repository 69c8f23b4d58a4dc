"""Tells the study how a job is doing, and stops what the study gives up."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
from omegaconf import DictConfig

from experiments.errors import StoppedRun

if TYPE_CHECKING:
    from optuna.trial import Trial

    from experiments.sweeps.study import Job


class ReportToStudy(keras.callbacks.Callback):
    """Reports `metric` after every epoch. Raises StoppedRun where the study's pruner says so."""

    def __init__(self, trial: "Trial", metric: str) -> None:
        super().__init__()
        self._trial, self._metric = trial, metric

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        value = float((logs or {})[self._metric])
        self._trial.report(value, epoch + 1)
        if self._trial.should_prune():
            raise StoppedRun(f"pruned after epoch {epoch + 1}: {self._metric} {value:.4f} is behind the others")


def watching(cfg: DictConfig, job: "Job") -> dict[str, keras.callbacks.Callback]:
    """What watches a job of a sweep; with several objectives nothing is pruned."""
    if len(job.trial.study.directions) > 1:
        return {}
    return {"(pruning)": ReportToStudy(job.trial, cfg.monitor.metric)}
