"""Control flow of a sweep: plans, queues, runs and summarizes its jobs."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from experiments.cli.on_end import on_end
from experiments.config.reference import quoted
from experiments.errors import ConfigError, ExperimentError, pluralized
from experiments.files import drop_torn_line
from experiments.records.plan_file import PLAN, write_plan
from experiments.sweeps.failures import GRACE_SECONDS, TRACES, Retries
from experiments.sweeps.parent_start import start_parent_run
from experiments.sweeps.plan import Plan, check_jobs, make_plan
from experiments.sweeps.processes import passed_on, refuse_workers
from experiments.sweeps.queue import STUDY, Queue, check_sampler, require_whole
from experiments.sweeps.stopped_sweep import new_sweep, resumed_plan, stopped_sweep
from experiments.sweeps.worker import Worker
from experiments.tracking.liveness import run_lock
from experiments.tracking.uris import require_answer

if TYPE_CHECKING:
    from experiments.sweeps.parent_run import Parent

logger = logging.getLogger(__name__)


def sweep(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> None:
    """Plans, queues and runs the jobs, then summarizes them. Raises ExperimentError at the end if jobs failed.

    `config` is composed without the swept overrides.
    """
    _check_launcher(config)
    folder, plan = _planned(arguments, config, context)
    if config.sweep.preview:
        from experiments.sweeps.preview import show_plan

        show_plan(plan, Queue.of_another_start(folder, plan).jobs() if config.sweep.resume else {})
        return
    if plan.logging.tracking_uri is not None:
        require_answer(plan.logging.tracking_uri)
    stored_path = any(re.match(r"\+*data\b.*path", each) for each in plan.typed if each not in arguments)
    with on_end(config.on_end, folder) as end, run_lock(folder):
        refuse_workers(folder)
        queue, retries = _filled(folder, plan)
        here = _in_this_process(config)
        with start_parent_run(plan, folder, at_once=here) as parent:
            if here:
                _opened(parent, queue, folder, is_new=config.sweep.resume is None)
                _announce_exit_on_hang(plan)
            with passed_on(folder):
                _work(Worker(folder, context, plan, stored_path), queue, retries, config)
            opened = _opened(parent, queue, folder, is_new=config.sweep.resume is None)
            _require_all_taken(queue, folder)
            from experiments.sweeps.summary import summarize

            failures = summarize(queue, plan, folder, opened)
            name, mode = next(iter(plan.objectives.items()))
            values = [trial.values[0] for trial in queue.jobs().values() if trial.values]
            best = (max if mode == "max" else min)(values, default=None)
            end |= {"run_id": opened.run_id, "monitored": name, "objective": best}
            if failures:  # ends the parent run as FAILED
                jobs, them = pluralized(failures, "job"), "it" if failures == 1 else "them"
                raise ExperimentError(
                    f"{jobs} failed: see the logs below {folder}, and retry {them} with sweep.resume=last."
                )


def _planned(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> tuple[Path, Plan]:
    if config.sweep.resume is None:
        folder = new_sweep(config)
        plan = make_plan(arguments, config, context.config_loader)
        check_jobs(plan)
        check_sampler(plan)
        return folder, plan
    folder = stopped_sweep(config, config.sweep.resume)
    plan = resumed_plan(folder, arguments, config, context.config_loader)
    require_whole(folder)
    return folder, plan


def _filled(folder: Path, plan: Plan) -> tuple[Queue, Retries]:
    drop_torn_line(folder / STUDY)
    queue = Queue.of_another_start(folder, plan) if (folder / PLAN).exists() else Queue(folder, plan)
    write_plan(folder, {"id": plan.id, "typed": plan.typed, "digests": plan.digests()})
    retries = Retries(queue, folder, plan.settings.max_retries)
    if queue.jobs():
        retries.take_up()
    else:
        queue.fill()
    return queue, retries


def _opened(parent: Callable[[], "Parent"], queue: Queue, folder: Path, *, is_new: bool) -> "Parent":
    """Waits for the parent run. Raises TrackingError if the store could not be opened; no job was taken then.

    In this case the plan and the queue of a new sweep are removed, so that sweep.resume=last does not find them.
    """
    try:
        return parent()
    except Exception:
        if is_new:
            queue.discard()
            (folder / PLAN).unlink()
        raise


def _announce_exit_on_hang(plan: Plan) -> None:
    """Logs in advance how this process ends if a job hangs in native code, when Python can no longer log it."""
    if plan.settings.job_timeout is not None:
        logger.info(
            "A job that hangs in native code ends this process %d s after sweep.job_timeout=%g and writes its stack "
            "trace to %s in its folder. Resume the sweep with sweep.resume=last then.",
            GRACE_SECONDS,
            plan.settings.job_timeout,
            TRACES,
        )


def _require_all_taken(queue: Queue, folder: Path) -> None:
    """Raises ExperimentError if jobs wait that the workers should have taken."""
    waiting = queue.waiting()
    if waiting and not queue.has_failed():
        raise ExperimentError(
            f"no worker took {waiting} of the jobs: expected a sweep folder whose locks all workers see, received "
            f"'{folder}'. Set hydra.sweep.dir to a folder on a file system that all machines share."
        )


def _work(worker: Worker, queue: Queue, retries: Retries, config: DictConfig) -> None:
    """Runs workers until the queue is empty.

    After a worker is killed, new workers run the waiting jobs. The interrupted jobs are retried at the end, one by one.
    """
    count = min(config.sweep.workers, queue.left())
    while count:
        try:
            _launch(worker, config, count)
        except ExperimentError:
            raise
        except Exception as error:
            if not retries.quarantine():
                raise
            logger.warning("A worker was killed (%s): the sweep continues.", str(error).partition(".")[0])
        else:
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
    folder = f"hydra.sweep.dir={quoted(str(worker.folder))}"
    jobs = [[folder, f"hydra.sweep.subdir=workers/{number}"] for number in range(count)]
    for returned in launcher.launch(jobs, initial_job_idx=0):
        _ = returned.return_value  # raises the error that ended the worker, if any


def _in_this_process(config: DictConfig) -> bool:
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def _check_launcher(config: DictConfig) -> None:
    if config.sweep.workers > 1 and _in_this_process(config):
        raise ConfigError(
            f"sweep.workers={config.sweep.workers} needs a launcher of several processes: expected "
            "hydra/launcher=joblib, ray or submitit, received basic. Add hydra/launcher=joblib "
            "(pip install hydra-joblib-launcher)."
        )
