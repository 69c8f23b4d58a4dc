"""The summary of a sweep: tables, best job, statistics over repeats, figures and failures."""

import logging
import math
import os
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from shlex import quote
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.text import Text
from optuna import Study, create_study, visualization
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from experiments.cli.safe_text import safe_text
from experiments.cli.tables import write, write_csv
from experiments.sweeps.failures import failure_reason
from experiments.sweeps.parent_run import Parent
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import DIRECTIONS, Queue, cell_of
from experiments.sweeps.search_space import short

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
        lines.append(f"best     #{number} {overrides}: {best.values[0]:.4f}")
        lines += [f"run id   {run_id}", f"next     experiments evaluate run_id={run_id}"] if run_id else []
        draw_figures(jobs, output, *next(iter(plan.objectives.items())))
    parent.log(output, values, tags)
    for table in (rows, cells):
        _show(table, names)
    _link_boards(folder, jobs, plan)
    lines += [f"summary  {output}", f"board    tensorboard --logdir {quote(str(folder / 'tensorboard'))}"]
    if parent.page is not None:
        lines += ("MLflow   " + parent.page.replace("\n", "\n         ")).split("\n")
    print("\n".join(map(safe_text, lines)), flush=True)
    return len(failed)


def _link_boards(folder: Path, jobs: Mapping[int, FrozenTrial], plan: Plan) -> None:
    """Links the TensorBoard files of all jobs below one folder, under readable names."""
    boards = folder / "tensorboard"
    try:
        boards.mkdir(exist_ok=True)
        for number, trial in jobs.items():
            name = plan.name(number, cell_of(trial), trial.user_attrs["repeat"]).replace("/", "_")
            link = boards / name.encode()[:250].decode(errors="ignore")  # Most file systems allow 255 bytes.
            # A job has no files if its results are those of an equal run. A link may be of an earlier start.
            if (folder / str(number) / boards.name).is_dir() and not os.path.lexists(link):
                link.symlink_to(Path("..", str(number), boards.name), target_is_directory=True)
    except OSError as error:
        logger.warning("TensorBoard's files of the jobs cannot be linked: %s", error)


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
        found = {"mean": mean, "standard deviation": deviation, "low": mean - half, "high": mean + half}
        yield {**dict(params), **found, "complete": complete}


def _show(rows: list[dict[str, Any]], names: list[str]) -> None:
    shown = [{name: value for name, value in row.items() if name not in HIDDEN} for row in rows]
    if shown:
        columns = list(shown[0])
        optional = [short(name, columns) for name in reversed(columns) if name not in ("job", "mean", *names)]
        table = [{short(name, columns): _text(row[name], name in names) for name in columns} for row in shown]
        write(table, "table", optional)


def _text(value: Any, is_objective: bool) -> Any:
    """Shortens numbers except objectives, which `write` prints with four decimals; NaN becomes an empty text."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) and not is_objective else value


def draw_figures(jobs: Mapping[int, FrozenTrial], output: Path, objective: str, direction: str) -> None:
    """Draws figures of the first objective, except those that too few or equal results do not allow."""
    # With a `target`, which several objectives require, Optuna ignores the direction. The trials become the jobs.
    study = create_study(direction=DIRECTIONS[direction])
    for trial in jobs.values():
        single = copy(trial)
        single.values = trial.values and trial.values[:1]
        study.add_trial(single)
    drawn: dict[str, Callable[..., Any]] = {
        "history": visualization.matplotlib.plot_optimization_history,
        "parallel_coordinates": _parallel_coordinates,
        "slice": visualization.matplotlib.plot_slice,
        "importance": _importance,
    }
    for name, draw in drawn.items():
        try:
            with warnings.catch_warnings():
                # Optuna warns about few jobs or equal values, which the figure shows as well.
                warnings.simplefilter("ignore")
                draw(study, target_name=objective)
                for text in pyplot.gcf().findobj(Text):
                    text.set_text({"Trial": "job", "Best Value": "best job"}.get(text.get_text(), text.get_text()))
                pyplot.gcf().savefig(output / f"{name}.png", bbox_inches="tight")
        except (ValueError, RuntimeError) as reason:
            logger.info("No figure of %s: %s", name, reason)
        finally:
            pyplot.close("all")


def _parallel_coordinates(study: Study, target_name: str) -> None:
    axes = visualization.matplotlib.plot_parallel_coordinate(study, target_name=target_name)
    # Optuna shortens the names, and draws the worst jobs white on grey. Here the best ones are dark.
    names = sorted({name for trial in study.trials for name in trial.params})
    axes.set_xticks(range(len(names) + 1), [target_name, *names], rotation=-15, ha="left")
    pyplot.setp(axes.collections, cmap="viridis_r" if study.direction.name == "MAXIMIZE" else "viridis", clip_on=False)


def _importance(study: Study, target_name: str) -> None:
    done = [trial for trial in study.trials if trial.value is not None]
    exact = shares_of_variance([trial.params for trial in done], [trial.values[0] for trial in done])
    shares = exact or get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    axes = pyplot.figure(figsize=(8, 1 + 0.5 * len(shares)), layout="constrained").subplots()
    axes.bar_label(axes.barh([*shares][::-1], [*shares.values()][::-1]), fmt="%.3f", padding=3)
    axes.set(xlim=(0, 1.1), title=f"share of the variance of {target_name}{'' if exact else ', estimated by fANOVA'}")


def shares_of_variance(cells: Sequence[Mapping[str, Any]], values: Sequence[float]) -> dict[str, float]:
    """Returns the shares of keys, interactions and repeats, sorted; {} if the jobs are no full grid."""
    if not np.ptp(values):
        raise ValueError("all results are equal")
    levels = {key: list(dict.fromkeys(cell[key] for cell in cells)) for key in cells[0]}
    places = [tuple(levels[key].index(cell[key]) for key in levels) for cell in cells]
    counts = Counter(places)
    if len(counts) < math.prod(map(len, levels.values())) or len(set(counts.values())) > 1:
        return {}
    # One axis per key, and the last one for the repeats.
    grid = np.array(values)[np.lexsort(np.transpose(places)[::-1])].reshape(*map(len, levels.values()), -1)
    parts = [grid.mean(axis=tuple({*range(grid.ndim)} - {axis})).var() / grid.var() for axis in range(len(levels))]
    by_cell = grid.mean(axis=-1).var() / grid.var()
    shares = [*zip(levels, parts, strict=True), ("(interactions)", by_cell - sum(parts)), ("(repeats)", 1 - by_cell)]
    return dict(sorted((part for part in shares if part[0] in levels or part[1] > 1e-9), key=lambda part: -part[1]))
