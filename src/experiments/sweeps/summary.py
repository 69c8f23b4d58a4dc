"""The summary of a sweep: tables, best job, statistics over repeats, figures and failures."""

import logging
import math
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from optuna import Study, visualization
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from experiments.cli.safe_text import safe_text
from experiments.cli.tables import write, write_csv
from experiments.sweeps.failures import failure_reason
from experiments.sweeps.parent_run import Parent
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import Queue, cell_of

matplotlib.use("Agg")

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # at INFO it comments on numeric labels

logger = logging.getLogger(__name__)
FOLDER = "summary"
CONFIDENCE = 0.95
LAST_LINES = 20
HIDDEN = ("epochs", "repeat", "run_id", "error")
"""Columns of the CSV file that are not shown at the terminal, to save space."""


def summarize(queue: Queue, plan: Plan, folder: Path, parent: Parent) -> int:
    """Writes and prints the summary. Returns the number of failed jobs."""
    jobs = dict(sorted(queue.jobs().items()))
    names = list(plan.objectives)
    runs = parent.close_killed()
    rows = [_row(number, trial, names, folder, runs.get(number, "")) for number, trial in jobs.items()]
    cells = list(_cells(plan, jobs)) if plan.settings.repeats > 1 else []
    failed = [row for row in rows if row["state"] == "FAIL"]
    complete = queue.complete()
    output = folder / FOLDER
    output.mkdir(exist_ok=True)
    for name, table in (("jobs", rows), ("cells", cells)):
        if table:
            with (output / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                write_csv(table, file)
    _write_failures(output / "failures.txt", failed, folder)
    lines, values, tags = [f"#{row['job']} failed: {row['error']}" for row in failed], {}, {}
    if complete:
        number, best = complete[0]
        run_id, values["best"] = best.user_attrs["run_id"], best.values[0]
        tags["best job"] = f"#{number} run {run_id}"
        overrides = " ".join(plan.overrides(best.params, best.user_attrs["repeat"]))
        lines.append(safe_text(f"best     #{number} {overrides}: {best.values[0]:.4f}"))
        lines += [f"run id   {run_id}", f"next     experiments evaluate run_id={run_id}"] if run_id else []
        draw_figures(queue.study, output, names[0])
    parent.log(output, values, tags)
    for table in (rows, cells):
        _show(table, names)
    lines.append(f"summary  {output}")
    if parent.page is not None:
        lines.append("MLflow   " + parent.page.replace("\n", "\n         "))
    print("\n".join(lines), flush=True)
    return len(failed)


def _row(number: int, trial: FrozenTrial, names: list[str], folder: Path, run_id: str) -> dict[str, Any]:
    """Table row of a job. `run_id` is the id of its run; a result taken from an equal run has the id of that one."""
    values = dict(zip(names, trial.values or [math.nan] * len(names), strict=True))
    seconds = trial.duration.total_seconds() if trial.duration else math.nan
    kept = {key: trial.user_attrs.get(key, "") for key in ("repeat", "run_id", "error")}
    kept["run_id"] = kept["run_id"] or run_id
    if trial.state == TrialState.FAIL and not kept["error"]:
        kept["error"] = failure_reason(folder / str(number))
    taken = {"seconds": round(seconds, 1), "epochs": trial.last_step or ""}
    return {"job": number, "state": trial.state.name, **cell_of(trial), **values, **taken, **kept}


def _write_failures(path: Path, failed: list[dict[str, Any]], folder: Path) -> None:
    """Writes the error and the last log lines of each failed job."""
    path.unlink(missing_ok=True)  # from an earlier start
    for row in failed:
        log = folder / str(row["job"]) / "train.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join([f"#{row['job']} failed: {row['error']}", *lines[-LAST_LINES:], "", ""]))


def _cells(plan: Plan, jobs: dict[int, FrozenTrial]) -> Iterator[dict[str, Any]]:
    """Yields mean, standard deviation and t-interval of each combination, and whether all its repeats are finished."""
    grouped: dict[tuple[Any, ...], list[FrozenTrial]] = {}
    for trial in jobs.values():
        grouped.setdefault(tuple(cell_of(trial).items()), []).append(trial)
    for params, trials in grouped.items():
        values = [trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE]
        mean = statistics.fmean(values) if values else math.nan
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * deviation / math.sqrt(len(values)) if values else 0
        complete = "yes" if len(values) == plan.settings.repeats else f"no, {len(values)} of {plan.settings.repeats}"
        yield {
            **dict(params),
            "mean": mean,
            "standard deviation": deviation,
            "low": mean - half,
            "high": mean + half,
            "complete": complete,
        }


def _show(rows: list[dict[str, Any]], names: list[str]) -> None:
    shown = [{name: value for name, value in row.items() if name not in HIDDEN} for row in rows]
    if shown:
        columns = list(shown[0])
        optional = [_short(name, columns) for name in reversed(columns) if name not in ("job", "mean", *names)]
        table = [{_short(name, columns): _text(row[name], name in names) for name in columns} for row in shown]
        write(table, "table", optional)


def _text(value: Any, is_objective: bool) -> Any:
    """Shortens numbers except objectives, which `write` prints with four decimals; NaN becomes an empty text."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) and not is_objective else value


def _short(name: str, names: list[str]) -> str:
    """Last part of a key, or the full key if another one has the same last part."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def draw_figures(study: Study, output: Path, objective: str) -> None:
    """Draws figures of the first objective, except those that too few or equal results do not allow."""
    drawn: dict[str, Callable[..., Any]] = {
        "history": visualization.matplotlib.plot_optimization_history,
        "parallel_coordinates": visualization.matplotlib.plot_parallel_coordinate,
        "slice": visualization.matplotlib.plot_slice,
        "importance": visualization.matplotlib.plot_param_importances,
    }
    for name, draw in drawn.items():
        try:
            with warnings.catch_warnings():
                # Optuna warns about few jobs or equal values, which the figure shows as well.
                warnings.simplefilter("ignore")
                draw(study, target=lambda trial: trial.values[0], target_name=objective)
        except (ValueError, RuntimeError) as reason:
            logger.info("No figure of %s: %s", name, reason)
            continue
        pyplot.gcf().savefig(output / f"{name}.png", bbox_inches="tight")
        pyplot.close("all")
