"""Queues that are damaged, and their repair: what the store has of a sweep's jobs is enough to make the queue anew."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.repair.base import Finding
from experiments.sweeps.plan import CELL, JOB, REPEAT, Plan, load_plan
from experiments.sweeps.previous_runs import for_sweep
from experiments.sweeps.processes import refuse_workers
from experiments.sweeps.queue import STUDY, Begun, Queue, damaged_line
from experiments.sweeps.stopped_sweep import sweeps
from experiments.tracking.liveness import is_locked, locked
from experiments.tracking.mlflow_store import at_best, existing_store

STATES = {"FINISHED": TrialState.COMPLETE, "FAILED": TrialState.FAIL}


def damaged_queues(roots: Sequence[str]) -> Iterator[Finding]:
    """Of sweeps at and below `roots`."""
    for folder in [folder for root in roots for folder in sweeps(Path(root).expanduser().absolute())]:
        line = damaged_line(folder)
        if line is not None and not is_locked(folder):
            yield Finding(
                "sweep",
                str(folder),
                f"line {line} of {STUDY} is damaged",
                "makes it anew from the runs in the store",
                partial(rebuild, folder),
            )


def rebuild(folder: Path) -> str:
    """Says what was done. The damaged file stays beside the new one."""
    with locked(folder):
        refuse_workers(folder)
        plan = load_plan(folder)
        client = existing_store(plan.logging.tracking_uri)
        runs = for_sweep(plan)
        (folder / STUDY).replace(folder / f"{STUDY}.damaged")
        queue = Queue(folder, plan)
        ended = {job: (run, state) for job, run in runs.items() if (state := _state(run)) is not None}
        done = {job: _trial(client, run, state, plan, queue) for job, (run, state) in ended.items()}
        queue.restore(done, {job: _begun(run) for job, run in runs.items() if job not in done})
    return f"made anew from {len(runs)} runs in the store; {STUDY}.damaged is the old one"


def _state(run: Run) -> TrialState | None:
    """None where the job is not at its end."""
    return TrialState.PRUNED if "stopped" in run.data.tags else STATES.get(run.info.status)


def _begun(run: Run) -> Begun:
    return Begun(json.loads(run.data.tags[CELL]), int(run.data.tags[REPEAT]))


def _trial(client: MlflowClient, run: Run, state: TrialState, plan: Plan, queue: Queue) -> FrozenTrial:
    cell, repeat = _begun(run)
    best = at_best(run, client, plan.monitor.metric, plan.monitor.mode) if state == TrialState.COMPLETE else {}
    history = client.get_metric_history(run.info.run_id, plan.monitor.metric)
    attributes = {"job": int(run.data.tags[JOB]), "repeat": repeat, "attempt": 0, "run_id": run.info.run_id}
    trial = create_trial(
        state=state,
        values=[best[name] for name in plan.objectives] if best else None,
        params=cell,
        distributions=queue.distributions,
        user_attrs=attributes | ({"error": run.data.tags["error"]} if "error" in run.data.tags else {}),
        intermediate_values={int(point.step): float(point.value) for point in history},
    )
    trial.datetime_start = datetime.fromtimestamp(run.info.start_time / 1000)
    trial.datetime_complete = datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000)
    return trial
