"""A worker process of a sweep: takes and runs jobs from the queue until none is left."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from experiments.cli.safe_text import safe_text, shortened
from experiments.config.explain import one_line
from experiments.errors import StoppedRun
from experiments.files import only_existing_files
from experiments.sweeps.job import Task, load
from experiments.sweeps.members import CLOSED, PARENT, WORKER
from experiments.sweeps.processes import at_work
from experiments.tracking.journal import Unavailable
from experiments.tracking.patience import (
    LEAVING_SECONDS,
    SWEEP_SECONDS,
    briefly,
    least_patience,
    most_patience,
    waiting,
)

if TYPE_CHECKING:
    from experiments.sweeps.plan import Plan
    from experiments.sweeps.queue import Job, Queue


@dataclass(frozen=True)
class Worker:
    """Task function that the launcher passes to the workers.

    `stored_path` is true if `data.path` comes from the stored plan only: nothing is downloaded or drawn there.
    """

    folder: Path
    context: HydraContext
    plan: "Plan"
    stored_path: bool
    sweep_process: int = field(default_factory=os.getpid, init=False)

    def __call__(self, cfg: DictConfig) -> int:
        """Returns the number of jobs it ran."""
        del cfg  # config of the worker; each job has its own
        # If the disk is full, each log record would print a traceback; the job's own error reports the cause.
        logging.raiseExceptions = False
        # A server or a database that restarts between two jobs must not fail them.
        patience = waiting(least_patience, SWEEP_SECONDS)
        with at_work() as stopped, only_existing_files(self.stored_path), patience:
            return self._work(stopped)

    def _work(self, stopped: Callable[[], bool]) -> int:
        from optuna.exceptions import UpdateFinishedTrialError

        from experiments.sweeps.queue import Queue

        _take_gpu(HydraConfig.get().job.num)
        queue, count = Queue(self.folder, self.plan), 0
        with queue.members.joined(WORKER) as name:
            if queue.left() and queue.members.state() != CLOSED:
                load()  # in parallel with the creation of the parent run
            opened = queue.members.wait_until_opened()
            parent = queue.study.user_attrs.get(PARENT)
            while opened and queue.members.is_open() and not stopped() and not queue.has_failed():
                job = queue.take(name)
                if job is None:
                    break
                try:
                    self._run(job, queue, parent)
                except UpdateFinishedTrialError:
                    _print(f"#{job.number}", " was taken over, as this worker gave no sign of life")
                except SystemExit:
                    # A worker that is stopped has not failed.
                    briefly(partial(queue.release, job), Unavailable, UpdateFinishedTrialError)
                    if os.getpid() == self.sweep_process:
                        raise
                    return count  # the signal ends this worker only, not its sweep
                count += 1
        with suppress(Unavailable), waiting(most_patience, LEAVING_SECONDS):
            if count and not queue.members.living():
                known = f"last hydra.sweep.dir={self.folder}" if self.plan.settings.storage is None else self.plan.id
                _print(f"The sweep process has ended: write the summary with sweep.resume={known}")
        return count

    def _run(self, job: "Job", queue: "Queue", parent: str | None) -> None:
        cfg = self._config(job)
        label = f"#{job.number} {' '.join(self.plan.overrides(job.cell, job.repeat))}"
        _print(label, f" ({queue.position()})")
        began = time.monotonic()
        done: JobReturn = run_job(
            hydra_context=self.context,
            task_function=Task(job, self.plan, parent),
            config=cfg,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        seconds = time.monotonic() - began
        # The public `return_value` raises the error.
        error = done._return_value if isinstance(done._return_value, Exception) else None
        if error is None:
            queue.finished(job, done.return_value)
            values = ", ".join(f"{value:.4f}" for value in done.return_value)
            _print(label, f": {values} ({seconds:.0f} s); {queue.outlook()}")
        elif isinstance(error, StoppedRun):
            queue.pruned(job)
            _print(label, f": {error} ({seconds:.0f} s)")
        else:
            reason = one_line(error) or type(error).__name__
            queue.failed(job, reason)
            _print(label, f" failed: {reason}")

    def _config(self, job: "Job") -> DictConfig:
        cfg = self.plan.config(job.cell, job.repeat)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.chdir = False  # relative paths count from the folder of the start
            cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir = str(self.folder), str(job.number)
            cfg.hydra.job.id = cfg.hydra.job.num = job.number
        # Only the first job records its graph, because recording takes longer than a tiny job.
        cfg.tensorboard.graph = cfg.tensorboard.graph and job.number == 0
        return cfg


def _print(label: str, result: str = "") -> None:
    """Prints to the terminal only, as the open log file belongs to a single job. Shortens a label that does not fit."""
    if sys.stderr.isatty():
        label = shortened(label, max(20, get_terminal_size().columns - len(result)))
    with suppress(BrokenPipeError):  # the terminal is gone; the job is not
        print(safe_text(label + result), file=sys.stderr, flush=True)


def _take_gpu(worker: int) -> None:
    """Assigns one of several GPUs to the worker unless CUDA_VISIBLE_DEVICES is set. Call before TensorFlow starts."""
    gpus = sorted(path.name for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    if len(gpus) > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(worker % len(gpus))
