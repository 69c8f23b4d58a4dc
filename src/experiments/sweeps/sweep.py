"""Control flow of a sweep: plans, queues, runs and summarizes its jobs."""

import logging
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.cli.on_end import on_end
from experiments.config.reference import quoted
from experiments.errors import ConfigError, ExperimentError, pluralized
from experiments.sweeps.failures import Retries
from experiments.sweeps.parent_start import start_parent_run
from experiments.sweeps.plan import Plan, check_jobs, make_plan
from experiments.sweeps.processes import passed_on
from experiments.sweeps.queue import Queue, check_sampler
from experiments.sweeps.stopped_sweep import new_sweep, resumed_plan, stopped_sweep
from experiments.sweeps.worker import Worker
from experiments.tracking.uris import SQLITE, require_answer

SETTLE_SECONDS = 5.0
"""Joblib kills all workers after one was killed. Their jobs are interrupted together, and none is charged."""
logger = logging.getLogger(__name__)


def sweep(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> None:
    """Plans, queues and runs the jobs, then summarizes them. Raises ExperimentError at the end if jobs failed.

    `config` is composed without the swept overrides. With `sweep.join`, this process only runs workers, for another
    sweep process.
    """
    _check(config)
    folder, plan, is_new = _planned(arguments, config, context)
    if config.sweep.preview:
        from experiments.sweeps.preview import show_plan

        show_plan(plan, {} if is_new else Queue.of_another_start(folder, plan).jobs())
        return
    if plan.logging.tracking_uri is not None:
        require_answer(plan.logging.tracking_uri)
    stored_path = any(re.match(r"\+*data\b.*path", each) for each in plan.typed if each not in arguments)
    worker = Worker(folder, context, plan, stored_path)
    if config.sweep.join is not None:
        if config.sweep.storage is not None and str(plan.logging.tracking_uri).startswith(SQLITE):
            raise ConfigError(
                f"the runs of this sweep are in {plan.logging.tracking_uri}, a file of the machine that started it: "
                "expected the address of an MLflow server. Start the sweep with logging.tracking_uri=http://..."
            )
        with passed_on(Queue.of_another_start(folder, plan).members, ends_sweep=False):
            _launch(worker, config, config.sweep.workers)
        return
    with on_end(config.on_end, folder) as end:
        queue = Queue(folder, plan, new=True) if is_new else Queue.of_another_start(folder, plan)
        folder.mkdir(parents=True, exist_ok=True)
        if plan.settings.storage is not None:
            logger.info("More workers join with: experiments worker sweep=%s sweep.storage=...", plan.id)
        with queue.members.leading():
            _run(worker, queue, config, end, is_new=is_new)


def _planned(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> tuple[Path, Plan, bool]:
    """Returns the folder and the plan, and True for a new sweep."""
    wanted = config.sweep.join or config.sweep.resume
    if wanted is None:
        folder = new_sweep(config)
        plan = make_plan(arguments, config, context.config_loader)
        check_jobs(plan)
        check_sampler(plan)
        return folder, plan, True
    folder, found = stopped_sweep(config, wanted)
    return folder, resumed_plan(folder, found, arguments, config, context.config_loader), False


def _run(worker: Worker, queue: Queue, config: DictConfig, end: dict[str, Any], *, is_new: bool) -> None:
    """Runs the jobs and summarizes them. Adds the results to `end`."""
    plan, folder = worker.plan, worker.folder
    retries = Retries(queue, folder, plan.settings.max_retries)
    retries.take_up()
    with start_parent_run(plan, queue, folder, at_once=_in_this_process(config)) as parent:
        with passed_on(queue.members, ends_sweep=True):
            _work(worker, queue, retries, config)
        try:
            opened = parent()
        except Exception:
            if is_new:  # No job was taken: sweep.resume=last must not find this sweep.
                queue.discard()
            raise
        from experiments.sweeps.summary import summarize

        failures = summarize(queue, plan, folder, opened)
        best = next((trial.values[0] for _, trial in queue.complete()), None)
        end |= {"run_id": opened.run_id, "monitored": next(iter(plan.objectives)), "objective": best}
        if failures:  # ends the parent run as FAILED
            jobs, them = pluralized(failures, "job"), "it" if failures == 1 else "them"
            raise ExperimentError(
                f"{jobs} failed: see the logs below {folder}, and retry {them} with sweep.resume=last."
            )


def _work(worker: Worker, queue: Queue, retries: Retries, config: DictConfig) -> None:
    """Runs workers until the queue is empty and no worker that has joined the sweep has a job.

    After a worker is killed, new workers run the waiting jobs. The interrupted jobs are retried at the end, one by one.
    """
    count = config.sweep.workers
    while True:
        killed = False
        try:
            if queue.left():
                _launch(worker, config, min(count, queue.left()))
            queue.wait_for_others()
        except ExperimentError:
            raise
        except Exception as error:
            if type(error) is ConnectionError:  # of Ray; errors of connections within jobs have classes of their own
                raise ExperimentError(
                    f"the launcher has started no worker: {error}. Expected a cluster that answers. Start it, or set "
                    "RAY_ADDRESS or hydra/launcher, and add sweep.resume=last."
                ) from error
            queue.members.wait_for_children(SETTLE_SECONDS)
            if not (killed := retries.quarantine()):
                raise
            logger.warning("A worker was killed (%s): the sweep continues.", str(error).partition(".")[0])
        killed = killed or retries.quarantine()
        # A worker that was stopped by a signal has left its job in the queue.
        waits = queue.left() and queue.members.is_open() and not queue.has_failed()
        if not killed and not waits:
            if not retries.queue_one_quarantined():
                return
            count = 1


def _launch(worker: Worker, config: DictConfig, count: int) -> None:
    """Launches `count` worker processes, each of which takes jobs until none is left."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(worker.folder)
        # At INFO the launcher announces its workers as if they were the jobs of the sweep.
        config.hydra.hydra_logging.root.level = "WARNING"
        if "n_jobs" in config.hydra.launcher:
            # With n_jobs=1 joblib runs the worker in this process, which must survive a killed worker.
            config.hydra.launcher.n_jobs = max(2, count)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=worker.context, task_function=worker, config=config
    )
    # Launchers compose the config of each worker again, from these overrides.
    shared = f"hydra.sweep.dir={quoted(str(worker.folder))}", "hydra.job.chdir=false"
    joined = "" if config.sweep.join is None else f"{socket.gethostname()}-{os.getpid()}-"
    jobs = [[*shared, f"hydra.sweep.subdir=workers/{joined}{number}"] for number in range(count)]
    for returned in launcher.launch(jobs, initial_job_idx=0):
        _ = returned.return_value  # raises the error that ended the worker, if any


def _in_this_process(config: DictConfig) -> bool:
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def _check(config: DictConfig) -> None:
    settings: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if settings["subdir"] != "${hydra.job.num}":
        raise ConfigError(
            f"hydra.sweep.subdir={settings['subdir']}: expected its default, as the folder of a job is its number. "
            "Leave it out, or set hydra.sweep.dir."
        )
    if config.sweep.workers > 1 and _in_this_process(config):
        raise ConfigError(
            f"sweep.workers={config.sweep.workers} needs a launcher of several processes: expected "
            "hydra/launcher=joblib, ray or submitit, received basic. Add hydra/launcher=joblib "
            "(pip install hydra-joblib-launcher)."
        )
