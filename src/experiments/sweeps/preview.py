"""The preview of a sweep: its jobs, their states, and the estimated time left."""

from collections.abc import Mapping
from datetime import timedelta
from statistics import fmean
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from experiments.cli.tables import console, write
from experiments.errors import pluralized
from experiments.sweeps.plan import Plan

if TYPE_CHECKING:
    from mlflow.entities import Run


def show_plan(plan: Plan, done: Mapping[int, FrozenTrial]) -> None:
    """Prints a line for each job. `done` maps job numbers to trials; it is empty before the first start."""
    if plan.settings.sampler != "grid":
        names = ", ".join(dimension.name for dimension in plan.space)
        console().print(f"{plan.settings.n_trials} jobs, drawn by sweep.sampler={plan.settings.sampler} from {names}")
        return
    equal = _equal(plan, done)
    jobs, rows = plan.jobs(), []
    for number, job in enumerate(jobs):
        state = f"equal to {equal[number].info.run_id}" if number in equal else _state(done.get(number))
        rows.append({"job": number, "overrides": " ".join(plan.overrides(*job)), "state": state})
    write(rows, "table", wrapped=("overrides", "state"))
    taken = f", {len(equal)} taken from equal runs unless the data have changed" if equal else ""
    left = len(jobs) - len(equal) - sum(trial.state.is_finished() for trial in done.values())
    planned = f"{pluralized(len(jobs), 'job')}{taken}{_time_left(plan, done, equal, left)}"
    console().print(f"{planned}. Nothing was run: leave out sweep.preview.")


def _equal(plan: Plan, done: Mapping[int, FrozenTrial]) -> dict[int, "Run"]:
    """Maps the numbers of unfinished jobs to equal finished runs whose results they will take."""
    if not plan.settings.reuse:
        return {}
    from experiments.sweeps.previous_runs import equal_to_each

    left = {
        number: plan.config(*job)
        for number, job in enumerate(plan.jobs())
        if number not in done or not done[number].state.is_finished()
    }
    return equal_to_each(left)


def _state(trial: FrozenTrial | None) -> str:
    return "waits" if trial is None or trial.state == TrialState.WAITING else trial.state.name.lower()


def _time_left(plan: Plan, done: Mapping[int, FrozenTrial], equal: Mapping[int, "Run"], left: int) -> str:
    """Estimate from the durations of finished jobs; empty if there are none."""
    seconds = [
        trial.duration.total_seconds()
        for trial in done.values()
        if trial.state == TrialState.COMPLETE and trial.duration
    ]
    seconds += [(run.info.end_time - run.info.start_time) / 1000 for run in equal.values()]
    if not seconds:
        return ""
    return f", {left} left, about {timedelta(seconds=round(fmean(seconds) * left / plan.settings.workers))}"
