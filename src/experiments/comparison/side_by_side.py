"""Rows of `experiments compare`: runs with the params that differ and their metrics."""

import logging
import math
import re
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig

from experiments.errors import ConfigError, TrackingError, reading
from experiments.records.named_run import METRIC, MODE, SWEEP, best_runs, is_parent, named_run
from experiments.tracking.mlflow_store import existing_store, find_runs
from experiments.tracking.redaction import mask

NOTE, LONGEST_NOTE = "note", 5000
"""Tag, and its limit in MLflow's older servers. The description is not used: it is written again when a run ends."""
logger = logging.getLogger(__name__)


def compare(command: DictConfig) -> list[dict[str, Any]]:
    """Returns a row for each run, the best first."""
    client = existing_store(command.logging.tracking_uri)
    newest = [] if command.logging.experiment_name else list(find_runs(client, newest=1))
    named = (client.get_experiment(run.info.experiment_id).name for run in newest)
    experiment = next(named, command.logging.experiment_name)
    with reading("the selection of runs", "conditions joined by `and` in filter, such as metrics.loss < 0.5"):
        runs = _selected(client, command, experiment)
    if not runs:
        raise TrackingError(
            f"no run in {mask(client.tracking_uri)} is selected: expected one or more. Change runs, sweep, filter or "
            "logging.experiment_name, or train a run with experiments train."
        )
    if command.note is not None:
        _add_note(client, runs, command.note)
    return _rows(runs, short=command.format == "table")[: command.best]


def _selected(client: MlflowClient, command: DictConfig, experiment: str | None) -> list[Run]:
    sweep = command.sweep
    if command.runs:
        return [named_run(client, name, experiment, "runs") for name in command.runs]
    if sweep == "last" or (sweep is None and command.filter is None and command.best is None):
        newest = find_runs(client, experiment, {SWEEP: None} if sweep else {}, newest=1)
        sweep = next((run.data.tags.get(SWEEP) for run in newest), None)
    where = " and ".join(filter(None, [sweep and f"tags.{SWEEP} = '{sweep}'", command.filter]))
    if command.best is not None:
        return best_runs(client, experiment, command.best, where)
    found = list(find_runs(client, experiment, where=where, newest=command.limit))
    if len(found) == command.limit:
        logger.info("Only the newest %d runs are shown: set best, filter or limit for others.", command.limit)
    return [run for run in found if not is_parent(run)]


def _add_note(client: MlflowClient, runs: list[Run], text: str) -> None:
    note = "\n".join(filter(None, [runs[0].data.tags.get(NOTE), mask(text)]))
    if len(runs) != 1 or not text or len(note) > LONGEST_NOTE:
        raise ConfigError(
            f"note cannot be added to {len(runs)} runs: expected one run, and a text that has at most {LONGEST_NOTE} "
            'characters with the notes before it. Write experiments note ID "text".'
        )
    client.set_tag(runs[0].info.run_id, NOTE, note)
    runs[0].data.tags[NOTE] = note


def _rows(runs: list[Run], *, short: bool) -> list[dict[str, Any]]:
    """Returns the rows, the best first. A missing value is None. `short` is for a table."""
    runs.sort(key=lambda run: -run.info.start_time)
    recorded = ({**run.data.params, **run.data.tags} for run in runs)  # runs of 0.3 have the monitor as params
    monitor = next((each for each in recorded if METRIC in each), {})
    best, sign = f"best_{monitor.get(METRIC)}", -1 if monitor.get(MODE) == "max" else 1
    values = {run.info.run_id: sign * run.data.metrics.get(best, math.nan) for run in runs}
    runs.sort(key=lambda run: (math.isnan(values[run.info.run_id]), values[run.info.run_id]))
    names = {name for run in runs for name in run.data.metrics if re.match("best_|test_|seconds_per_epoch", name)}
    names |= {best, "best_epoch", "seconds_per_epoch"} if monitor else set()
    metrics = sorted(names, key=lambda name: (name != best, "bts".find(name[0]), name == "best_epoch", name))
    params = sorted({name for run in runs for name in run.data.params if not name.startswith("logging.")})
    params = [name for name in params if len({run.data.params.get(name) for run in runs} - {None}) > 1]
    lasts = [name.rpartition(".")[2] for name in params]
    titles = [last if short and lasts.count(last) == 1 else name for name, last in zip(params, lasts, strict=True)]
    return [
        {"run": run.info.run_name, "run_id": run.info.run_id[: 8 if short else None]}
        | {title: run.data.params.get(name) for title, name in zip(titles, params, strict=True)}
        | {name: _number(name, run.data.metrics.get(name)) for name in metrics}
        | {"status": run.info.status, NOTE: run.data.tags.get(NOTE)}
        for run in runs
    ]


def _number(name: str, value: float | None) -> float | str | None:
    """Returns the value of a metric as JSON can represent it."""
    if value is None or not math.isfinite(value):
        return value and str(value)
    return int(value) if name == "best_epoch" else value
