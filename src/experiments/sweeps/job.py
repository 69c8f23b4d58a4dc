"""Training of one job of a sweep, called by Hydra's `run_job`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.config.explain import EXPLAINED, one_line
from experiments.errors import ConfigError, StoppedRun, near
from experiments.records.named_run import JOB, SWEEP
from experiments.sweeps.failures import JobTimeoutError, time_limit
from experiments.sweeps.plan import Plan
from experiments.tracking.notes import code
from experiments.tracking.patience import most_patience, waiting
from experiments.tracking.redaction import mask, remember_secrets

if TYPE_CHECKING:
    from experiments.runs.results import Result
    from experiments.sweeps.queue import Job

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Task function of one job. `parent` is the id of the parent run, or None without tracking."""

    job: "Job"
    plan: Plan
    parent: str | None

    def __call__(self, cfg: DictConfig) -> list[float]:
        output_dir = Path(HydraConfig.get().runtime.output_dir)
        try:
            remember_secrets(OmegaConf.to_container(cfg, resolve=True))
            load()  # not within the time limit: an interrupted import would break later jobs
            with time_limit(self.plan.settings.job_timeout, output_dir):
                result = self._train(cfg, output_dir)
        except StoppedRun:
            raise
        except EXPLAINED as error:
            logger.error("error: %s", one_line(error))
            raise
        except Exception:
            logger.exception("This job failed")
            raise
        self.job.trial.set_user_attr("run_id", result.run_id)
        return self._values(result)

    def _values(self, result: "Result") -> list[float]:
        """Values of the objectives at the best epoch of the monitored metric."""
        for name in self.plan.objectives:
            if name not in result.at_best:
                raise ConfigError(f"sweep.objectives.{name} is not a metric of this run. {near(name, result.at_best)}")
        return [result.at_best[name] for name in self.plan.objectives]

    def _train(self, cfg: DictConfig, output_dir: Path) -> "Result":
        from experiments.runs.run import run
        from experiments.sweeps import previous_runs
        from experiments.sweeps.compiled_models import sharing_models
        from experiments.sweeps.pruning import watching

        tags = {SWEEP: self.plan.id, JOB: str(self.job.number)}
        begun = previous_runs.for_job(cfg, tags)
        reused = begun if begun is not None and begun.info.status == "FINISHED" else None
        if reused is None and self.plan.settings.reuse:
            reused = previous_runs.equal_to(cfg)
        if reused is not None:
            logger.info("results taken from identical run %s", reused.info.run_id)
            return previous_runs.result(reused, cfg, output_dir)
        if self.parent is not None:
            tags["mlflow.parentRunId"] = self.parent
        cfg.resume = None if begun is None else begun.info.run_id
        name = self.plan.name(self.job.number, self.job.cell, self.job.repeat)
        cfg.logging.run_name = " ".join(filter(None, [cfg.logging.run_name, name]))
        with sharing_models() as assemble:
            return run(cfg, output_dir, extra=watching(cfg, self.job), tags=tags, assemble=assemble, remark=self._best)

    def _best(self) -> str:
        """Returns the values by which the best other job differs; empty if there is none, or if the queue fails."""
        try:
            with waiting(most_patience, 0):
                return self._best_other()
        except JobTimeoutError:
            raise
        except Exception as error:  # A sentence must not fail a trained run.
            logger.info("The best other job could not be read from the queue: %s", error)
            return ""

    def _best_other(self) -> str:
        done = [trial for trial in self.job.trial.study.best_trials if "job" in trial.user_attrs]
        objective, way = next(iter(self.plan.objectives.items()))
        best = (max if way == "max" else min)(done, key=lambda trial: trial.values[0], default=None)
        if best is None:
            return ""
        other = self.plan.overrides(best.params, best.user_attrs["repeat"])
        values = set(other).difference(self.plan.overrides(self.job.cell, self.job.repeat))
        differing = code(mask(" ".join(filter(values.__contains__, other))))
        return f"Best other job: #{best.user_attrs['job']} with {differing}, {code(objective)} {best.values[0]:.4g}."


def load() -> None:
    """Imports TensorFlow and the training code. Only the first call in a process does any work."""
    from experiments.cli.startup import suppress_startup_logs, without_gc

    with suppress_startup_logs(), without_gc():
        import experiments.runs.run  # noqa: F401
        from experiments.sweeps.compiled_models import freeze_imports
    freeze_imports()
