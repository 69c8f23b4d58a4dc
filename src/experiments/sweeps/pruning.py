"""Reports the progress of a job to the study, and stops jobs that the study prunes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
from omegaconf import DictConfig

from experiments.checkpoints.callback_state import State
from experiments.errors import StoppedRun
from experiments.tracking.journal import Unavailable
from experiments.tracking.patience import received

if TYPE_CHECKING:
    from optuna.trial import Trial

    from experiments.sweeps.queue import Job


class ReportToStudy(keras.callbacks.Callback):
    """Reports `metric` after each epoch. Raises StoppedRun if the pruner asks for it, except after the last epoch.

    A resumed job is a new trial, so it reports its earlier epochs again.
    """

    def __init__(self, trial: "Trial", metric: str, epochs: int) -> None:
        super().__init__()
        self._trial, self._metric, self._epochs = trial, metric, epochs
        self._values: list[float] = []

    def get_state(self) -> State:
        return {"values": list(self._values)}

    def set_state(self, state: State) -> None:
        for value in state["values"]:
            self._report(value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        value = float((logs or {})[self._metric])
        try:
            self._report(value)
            behind = epoch + 1 < self._epochs and self._trial.should_prune()
        except Unavailable:
            if not received:
                raise
            return  # A signal ends the job after this callback. The resumed job reports the value again.
        if behind:
            raise StoppedRun(f"pruned after epoch {epoch + 1}: {self._metric} {value:.4f} is behind the others")

    def _report(self, value: float) -> None:
        self._values.append(value)
        self._trial.report(value, len(self._values))


def watching(cfg: DictConfig, job: "Job") -> dict[str, keras.callbacks.Callback]:
    """Callbacks that report a job to the study. Empty with several objectives, as Optuna cannot prune these."""
    if len(job.trial.study.directions) > 1:
        return {}
    return {"(pruning)": ReportToStudy(job.trial, cfg.monitor.metric, cfg.epochs)}
