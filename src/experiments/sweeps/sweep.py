"""One sweep, read once from top to bottom."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from experiments.errors import ConfigError, ExperimentError
from experiments.files import drop_torn_line
from experiments.records.plan_file import PLAN, write_plan
from experiments.sweeps.failures import GRACE_SECONDS, TRACES, Retries
from experiments.sweeps.parent_start import start_parent_run
from experiments.sweeps.plan import Plan, code_has_changed, make_plan
from experiments.sweeps.processes import passed_on, refuse_workers
from experiments.sweeps.queue import STUDY, Queue, check_sampler, require_whole
from experiments.sweeps.stopped_sweep import new_sweep, resumed_plan, stopped_sweep
from experiments.sweeps.worker import Worker, too_many_failures
from experiments.tracking.liveness import run_lock
from experiments.tracking.uris import require_answer

if TYPE_CHECKING:
    from experiments.sweeps.parent_run import Parent

logger = logging.getLogger(__name__)


def sweep(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> None:
    """Plans, queues and runs the jobs, then sums them up. Raises ExperimentError at the end where jobs failed.

    config: composed without what varies.
    """
    _check_launcher(config)
    folder, plan = _planned(arguments, config, context)
    if config.sweep.preview:
        from experiments.sweeps.preview import show_plan

        show_plan(plan, Queue(folder, plan).jobs() if config.sweep.resume else {})
        return
    if plan.logging.tracking_uri is not None:
        require_answer(plan.logging.tracking_uri)
    with run_lock(folder):
        refuse_workers(folder)
        queue, retries = _filled(folder, plan)
        here = _in_this_process(config)
        with start_parent_run(plan, folder, at_once=here) as parent:
            if here:
                _opened(parent, queue, folder, is_new=config.sweep.resume is None)
                _say_what_a_hanging_job_does(plan)
            with passed_on(folder):
                _work(Worker(folder, context), queue, retries, config)
            opened = _opened(parent, queue, folder, is_new=config.sweep.resume is None)
            _require_all_taken(queue, plan, folder)
            from experiments.sweeps.summary import summarize

            _require_success(summarize(queue, plan, folder, opened), folder)


def _planned(arguments: Sequence[str], config: DictConfig, context: HydraContext) -> tuple[Path, Plan]:
    if config.sweep.resume is None:
        folder = new_sweep(config)
        plan = make_plan(arguments, config.sweep, config, context.config_loader)
        check_sampler(plan)
        return folder, plan
    folder = stopped_sweep(config, config.sweep.resume)
    plan = resumed_plan(folder, arguments)
    require_whole(folder)
    if code_has_changed(plan):
        logger.warning("The code has changed since this sweep began: the jobs that are left run with the new one.")
    return folder, plan


def _filled(folder: Path, plan: Plan) -> tuple[Queue, Retries]:
    write_plan(folder, plan)
    drop_torn_line(folder / STUDY)
    queue = Queue(folder, plan)
    retries = Retries(queue, folder, plan.settings.max_retries)
    if queue.jobs():
        retries.take_up()
    else:
        queue.fill()
    return queue, retries


def _opened(parent: Callable[[], "Parent"], queue: Queue, folder: Path, *, is_new: bool) -> "Parent":
    """When workers have ended. Raises TrackingError where the store could not be opened, so that no job was taken.

    A new sweep leaves nothing then that sweep.resume=last would take for one that was stopped.
    """
    try:
        return parent()
    except Exception:
        if is_new:
            queue.discard()
            (folder / PLAN).unlink()
        raise


def _say_what_a_hanging_job_does(plan: Plan) -> None:
    """When its time is over, nothing of this process's own Python runs any more to say it."""
    if plan.settings.job_timeout is not None:
        logger.info(
            "A job that hangs outside of Python ends this process %d s after sweep.job_timeout=%g: %s in its folder "
            "says where. Go on by sweep.resume=last then.",
            GRACE_SECONDS,
            plan.settings.job_timeout,
            TRACES,
        )


def _require_all_taken(queue: Queue, plan: Plan, folder: Path) -> None:
    """Raises ExperimentError where jobs wait that workers should have taken."""
    waiting = queue.waiting()
    if waiting and not too_many_failures(queue, plan):
        raise ExperimentError(
            f"{waiting} of the jobs were taken by no worker: expected that workers see the locks of '{folder}', as a "
            "file system that all machines share shows them. Set hydra.sweep.dir to such a place."
        )


def _work(worker: Worker, queue: Queue, retries: Retries, config: DictConfig) -> None:
    """Lets workers empty the queue. Where one was killed, its jobs run again at the end, alone: the others go on."""
    count = min(config.sweep.workers, queue.left())
    while count:
        try:
            _launch(worker, config, count)
        except ExperimentError:
            raise
        except Exception as error:
            if not retries.quarantine():
                raise
            logger.warning("A worker was killed (%s): the sweep goes on.", str(error).partition(".")[0])
        else:
            if not retries.queue_one_quarantined():
                return
            count = 1


def _launch(worker: Worker, config: DictConfig, count: int) -> None:
    """Asks the launcher for processes; each takes jobs until none is left."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(worker.folder)
        # The launcher would tell of its workers as of jobs.
        config.hydra.hydra_logging.root.level = "WARNING"
        if "n_jobs" in config.hydra.launcher:
            # With one, joblib would run it in this process, which has to outlive its workers.
            config.hydra.launcher.n_jobs = max(2, count)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=worker.context, task_function=worker, config=config
    )
    # The launcher composes each worker's config anew.
    own = f"hydra.sweep.dir={QuotedString(str(worker.folder), Quote.single).with_quotes()}"
    jobs = [[own, f"hydra.sweep.subdir=workers/{number}"] for number in range(count)]
    for returned in launcher.launch(jobs, initial_job_idx=0):
        _ = returned.return_value  # raises what ended the worker itself


def _require_success(failures: int, folder: Path) -> None:
    """Raises ExperimentError where jobs failed, which ends the sweep's own run as FAILED."""
    if failures:
        jobs, them = ("1 job", "it") if failures == 1 else (f"{failures} jobs", "them")
        raise ExperimentError(f"{jobs} failed: see the logs below {folder}, and try {them} again by sweep.resume=last.")


def _in_this_process(config: DictConfig) -> bool:
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def _check_launcher(config: DictConfig) -> None:
    if config.sweep.workers > 1 and _in_this_process(config):
        raise ConfigError(
            f"sweep.workers={config.sweep.workers} needs a launcher of several processes: expected "
            "hydra/launcher=joblib, ray or submitit, received basic. Add hydra/launcher=joblib "
            "(pip install hydra-joblib-launcher)."
        )
