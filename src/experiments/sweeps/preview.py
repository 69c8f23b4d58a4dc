"""Shows a plan without running it."""

from datetime import timedelta

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from experiments.sweeps.plan import Plan

WAITING = "waits"


def show_plan(plan: Plan, done: dict[int, FrozenTrial]) -> None:
    """A line a job. done: number -> what became of it; empty before the first start."""
    console = Console()
    if plan.settings.sampler != "grid":
        names = ", ".join(dimension.name for dimension in plan.space)
        console.print(f"{plan.settings.n_trials} jobs, drawn by sweep.sampler={plan.settings.sampler} from {names}")
    else:
        table = Table("job", "words", "state")
        jobs = plan.jobs()
        for number, (cell, repeat) in enumerate(jobs):
            table.add_row(str(number), " ".join(plan.words(cell, repeat)), _state(done.get(number)))
        console.print(table)
        noun = "job" if len(jobs) == 1 else "jobs"
        console.print(
            f"{len(jobs)} {noun}{_time_left(plan, done, len(jobs))}. Nothing was run: leave out sweep.preview."
        )


def _state(trial: FrozenTrial | None) -> str:
    return WAITING if trial is None or trial.state == TrialState.WAITING else trial.state.name.lower()


def _time_left(plan: Plan, done: dict[int, FrozenTrial], jobs: int) -> str:
    """From the finished ones."""
    taken = [trial.duration for trial in done.values() if trial.state == TrialState.COMPLETE and trial.duration]
    if not taken:
        return ""
    left = jobs - sum(trial.state.is_finished() for trial in done.values())
    seconds = sum(taken, timedelta()).total_seconds() / len(taken) * left / plan.settings.workers
    return f", {left} left, about {timedelta(seconds=round(seconds))}"
