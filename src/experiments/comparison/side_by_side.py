"""Rows of `experiments compare`: runs with the params that differ and their metrics, or the differences of two runs."""

import logging
import math
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig

from experiments.errors import ConfigError, TrackingError, first_few, pluralized, reading
from experiments.records.fingerprint import joint_digest
from experiments.records.named_run import DATA, METRIC, MODE, SWEEP, best_runs, is_parent, named_run, sweep_of
from experiments.records.params import flatten
from experiments.records.snapshot import CONFIG, read_config
from experiments.records.trust import LARGEST_FILE
from experiments.tracking.mlflow_store import existing_store, find_runs
from experiments.tracking.names import valid_name
from experiments.tracking.redaction import mask

NOTE, LONGEST_NOTE = "note", 5000
"""Tag, and its limit in MLflow's older servers. The description is not used: it is written again when a run ends."""
_CODE = re.compile(r"mlflow\.source\..*|fingerprint\.code")
_ENVIRONMENT = re.compile(r"version\..*|fingerprint\.(threads|replicas)|cpu|cores|host|platform")
_PACKAGE = re.compile(r"^([\w.\-]+)==(.+)$", re.MULTILINE)
_PATCH = re.compile(r"^diff --git .* b/(.*)\n((?:.*\n)*?)(?=diff --git)", re.MULTILINE)
UNCOMPARED = ("logging.", "tensorboard.", "progress")
"""Beginnings of keys that change no result; a sweep sets some of them in its first job."""
PARTS = ("run", "config", "code", "data", "environment", "metrics")
logger = logging.getLogger(__name__)


def compare(command: DictConfig) -> list[dict[str, Any]]:
    """Returns a row for each run, the best first, or for each difference of the two runs `diff`."""
    client = existing_store(command.logging.tracking_uri)
    newest = [] if command.logging.experiment_name else list(find_runs(client, newest=1))
    named = (client.get_experiment(run.info.experiment_id).name for run in newest)
    experiment = next(named, command.logging.experiment_name)
    with reading("the selection of runs", "conditions joined by `and` in filter, such as metrics.loss < 0.5"):
        runs = _selected(client, command, experiment)
    if not runs:
        known = first_few(each.name for each in client.search_experiments(max_results=20)) or "(none)"
        raise TrackingError(
            f"no run in {mask(client.tracking_uri)} is selected: expected one or more, of the experiments {known}. "
            "Change runs, sweep, filter or logging.experiment_name, or train a run with experiments train."
        )
    data = {run.data.tags.get(DATA) for run in runs} - {None}
    if len(data) > 1 and not command.diff:
        logger.warning("The runs were validated on %d different data sets: best=N compares runs of one.", len(data))
    if command.note is not None:
        with reading("the run", "a run that is not deleted"):
            _add_note(client, runs, command.note)
    short = command.format == "table"
    return _differences(client, runs, short=short) if command.diff else _rows(runs, short=short)[: command.best]


def _selected(client: MlflowClient, command: DictConfig, experiment: str | None) -> list[Run]:
    sweep = command.sweep
    if command.diff or command.runs:
        if len(command.diff) not in (0, 2):
            raise ConfigError(f"diff={command.diff} is out of range: expected two runs. Write diff=[RUN,RUN].")
        key = "diff" if command.diff else "runs"
        if others := [each for each in ("runs", "sweep", "filter", "best") if each != key and command[each]]:
            raise ConfigError(f"{key} names the runs: expected no {' or '.join(others)} beside it. Leave one out.")
        # A run may have several names.
        found = [named_run(client, name, experiment, key) for name in dict.fromkeys(command[key])]
        return found if command.diff else list({run.info.run_id: run for run in found}.values())
    if sweep == "last" or (sweep is None and command.filter is None and command.best is None):
        newest = find_runs(client, experiment, {SWEEP: None} if sweep else {}, newest=1)
        sweep = next((run.data.tags.get(SWEEP) for run in newest), None)
    elif sweep is not None:
        sweep = sweep_of(client, sweep)
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
            f"note cannot be added: expected one run and a text, with earlier notes {LONGEST_NOTE} characters at most, "
            f'received {pluralized(len(runs), "run")} and {len(note)}. Write experiments note ID "text".'
        )
    client.set_tag(runs[0].info.run_id, NOTE, note)
    runs[0].data.tags[NOTE] = note


def _rows(runs: list[Run], *, short: bool) -> list[dict[str, Any]]:
    """Returns the rows, the best first. A missing value is None. `short` is for a table."""
    runs.sort(key=lambda run: -run.info.start_time)
    recorded = ({**run.data.params, **run.data.tags} for run in runs)  # runs of 0.3 have the monitor as params
    monitor = next((each for each in recorded if METRIC in each), {})
    best, sign = valid_name(f"best_{monitor.get(METRIC)}"), -1 if monitor.get(MODE) == "max" else 1
    values = {run.info.run_id: sign * run.data.metrics.get(best, math.nan) for run in runs}
    ranked = {run_id: value for run_id, value in values.items() if not math.isnan(value)}
    # Of equal runs, the first is the best. Runs without a value stay sorted by time, the newest first.
    runs.sort(
        key=lambda run: (ranked.get(run.info.run_id, math.inf), run.info.run_id in ranked and run.info.start_time)
    )
    names = {name for run in runs for name in run.data.metrics if re.match("best_|test_|seconds_per_epoch", name)}
    names |= {best, "best_epoch", "seconds_per_epoch"} if monitor else set()
    metrics = sorted(names, key=lambda name: (name != best, "bts".find(name[0]), name == "best_epoch", name))
    noted = any(NOTE in run.data.tags for run in runs)
    params = sorted({name for run in runs for name in run.data.params if not name.startswith("logging.")})
    params = [name for name in params if len({run.data.params.get(name) for run in runs} - {None}) > 1]
    lasts = [name.rpartition(".")[2] for name in params]
    taken = {"run", "run_id", "status", NOTE, *metrics}
    titles = [
        last if short and lasts.count(last) == 1 and last not in taken else name
        for name, last in zip(params, lasts, strict=True)
    ]
    return [
        {"run": run.info.run_name, "run_id": run.info.run_id[: 8 if short else None]}
        | {title: run.data.params.get(name) for title, name in zip(titles, params, strict=True)}
        | {name: _number(name, run.data.metrics.get(name)) for name in metrics}
        | {"status": run.info.status}
        | ({NOTE: run.data.tags.get(NOTE)} if noted or not short else {})
        for run in runs
    ]


def least_important(columns: Iterable[str]) -> list[str]:
    """Returns the columns that a narrow terminal may leave out; names, the monitor and the state always stay."""
    best = next((name for name in columns if name.startswith("best_")), "")
    first = [name for name in ("seconds_per_epoch", "trainable_parameters", "parameters") if name in columns]
    return first + [name for name in reversed([*columns]) if name not in ("run", "run_id", best, "status", *first)]


def _number(name: str, value: float | None) -> float | str | None:
    """Returns the value of a metric as JSON can represent it."""
    if value is None or not math.isfinite(value):
        return value and str(value)
    return int(value) if name == "best_epoch" else value


def _differences(client: MlflowClient, runs: list[Run], *, short: bool) -> list[dict[str, Any]]:
    first, second = (_facts(client, run) for run in runs)

    def shown(value: Any) -> Any:  # a table rounds numbers to four digits, which may be equal
        return f"{value:.6g}" if short and isinstance(value, float) else value

    return [
        {"part": part, "name": name, "first": shown(first.get((part, name))), "second": shown(second.get((part, name)))}
        for part, name in sorted({**first, **second}, key=lambda key: PARTS.index(key[0]))
        if part == "run" or (first.get((part, name)) != second.get((part, name)) and not name.startswith(UNCOMPARED))
    ]


def _facts(client: MlflowClient, run: Run) -> dict[tuple[str, str], Any]:
    """Returns the facts in the store, and in those files of `config/` that the run has, by part and name."""
    run_id, data = run.info.run_id, run.data
    facts: dict[tuple[str, str], Any] = {("run", "id"): run_id, ("run", "name"): run.info.run_name}
    facts |= {("config", name): value for name, value in data.params.items()}
    facts |= {("code", name): value for name, value in data.tags.items() if _CODE.fullmatch(name)}
    facts |= {("environment", name): value for name, value in data.tags.items() if _ENVIRONMENT.fullmatch(name)}
    facts |= {("metrics", name): _number(name, value) for name, value in data.metrics.items() if "/" not in name}
    for used in run.inputs.dataset_inputs:
        facts["data", " ".join(tag.value for tag in used.tags)] = f"{used.dataset.digest} {used.dataset.name}"
    with tempfile.TemporaryDirectory() as folder, reading(f"config/ of run {run_id}"):
        for file in client.list_artifacts(run_id, "config"):
            if Path(file.path).name not in (CONFIG, "git.diff", "environment.txt"):
                continue
            if file.file_size is None or file.file_size > LARGEST_FILE:
                raise ValueError(f"{file.path} is larger than 10 MB")
            path = Path(client.download_artifacts(run_id, file.path, folder))
            if path.name == CONFIG:
                config = flatten(read_config(path.parent, f"run {run_id}"))
                facts |= {("config", name): value for name, value in config.items()}
            else:
                text = path.read_text(encoding="utf-8", errors="replace")
                packages = _PACKAGE.findall(text if path.name == "environment.txt" else "")
                facts |= {("environment", name): version for name, version in packages}
                for name, change in _PATCH.findall(f"{text.rstrip()}\ndiff --git"):
                    size, digest = len(change.strip().splitlines()), joint_digest(change.strip().encode())
                    facts["code", f"patch {name}"] = f"{pluralized(size, 'line')}, {digest[:8]}"
    return facts
