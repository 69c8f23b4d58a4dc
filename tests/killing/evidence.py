"""Results of a run that must not depend on how often it was killed."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from mlflow import MlflowClient

STORE = "mlflow.db"
Points = dict[str, list[list[float]]]
"""[step, value] of each point, sorted by step, by name of the metric."""


def empty_store(folder: Path) -> None:
    """Creates a database with its tables. Tests copy it, because creating the tables takes seconds."""
    MlflowClient(f"sqlite:///{folder}/{STORE}").search_experiments()


def statuses(folder: Path) -> list[str]:
    """Returns the status of each run in the folder's store. Reads the database directly, without MLflow."""
    with closing(sqlite3.connect(folder / STORE)) as connection:
        return [status for (status,) in connection.execute("select status from runs order by start_time")]


def evidence(folder: Path) -> dict[str, Any]:
    """Returns everything to compare. "all variables" is a SHA-256 over the variables of the latest checkpoint."""
    # An empty journal belongs to a start that was killed before it created a run.
    (journal,) = (path for path in folder.glob("outputs/*/*/journal.jsonl") if path.stat().st_size > 0)
    output = journal.parent
    last = tf.train.latest_checkpoint(str(output / "checkpoints"))
    best = tf.train.latest_checkpoint(str(output / "checkpoints" / "best"))
    return {
        "last checkpoint": Path(last).name,
        "all variables": digest(last),
        "best weights": digest(best),
        "objective": json.loads(Path(f"{best}.json").read_text(encoding="utf-8"))["state"],
        "figures": sorted(path.name for path in (output / "figures").iterdir()),
        "model": (output / "model" / "MLmodel").exists(),
        "refused by the store": (output / "journal.rejected.jsonl").exists(),
        "half-written": sorted(
            path.name for path in output.rglob("*") if path.suffix == ".tmp" or "_temp" in path.name
        ),
        "TensorBoard": tensorboard(output / "tensorboard"),
        **stored(folder),
    }


def digest(prefix: str) -> str:
    reader, found = tf.train.load_checkpoint(prefix), hashlib.sha256()
    for name in sorted(reader.get_variable_to_shape_map()):
        # The object graph contains file names, and the counter depends on the number of saves.
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH" and not name.startswith("save_counter"):
            found.update(name.encode() + np.asarray(reader.get_tensor(name)).tobytes())
    return found.hexdigest()


def stored(folder: Path) -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{folder}/{STORE}")
    found = client.search_runs(["1"])
    # Times and memory differ at every start.
    run_id, measured = found[0].info.run_id, re.compile("system/.*|peak_memory_mb|.*_per_.*|seconds_.*")
    names = [name for name in found[0].data.metrics if not measured.fullmatch(name)]
    points = {name: client.get_metric_history(run_id, name) for name in names}
    return {
        "runs": [run.info.status for run in found],
        "MLflow": {name: sorted([point.step, point.value] for point in each) for name, each in points.items()},
        "datasets": len(found[0].inputs.dataset_inputs),
        "artifacts": sorted(item.path for item in client.list_artifacts(run_id)),
        "images": sorted(item.path for item in client.list_artifacts(run_id, "images")),
        "logged models": [
            (str(model.status), model.tags, sorted((metric.key, metric.step, metric.value) for metric in model.metrics))
            for model in client.search_logged_models(["1"])
        ],
        "outputs": len(found[0].outputs.model_outputs),
    }


def tensorboard(folder: Path) -> Points:
    points: Points = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        for step, tag, value in _scalars(file):
            points.setdefault(f"{file.parent.name}/{tag}", []).append([step, value])
    return {name: sorted(found) for name, found in points.items()}


def _scalars(file: Path) -> Iterator[tuple[int, str, float]]:
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars" or not value.HasField("metadata"):
                number = tf.make_ndarray(value.tensor)
                yield event.step, value.tag, float(number)


def differences(whole: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    """Returns a line for each result that differs."""
    unequal = [key for key in {**whole, **killed} if whole.get(key) != killed.get(key)]
    return [f"{key}: {_difference(whole.get(key), killed.get(key))}" for key in unequal]


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        return "; ".join(f"{name} {_points(one.get(name), other.get(name))}" for name in names)
    return f"{one} != {other}"


def _points(one: Any, other: Any) -> str:
    if not isinstance(one, list) or not isinstance(other, list):
        return f"{one} != {other}"
    missing = [point for point in one if point not in other]
    added = [point for point in other if point not in one]
    return f"missing {missing[:3]}, new {added[:3]}, {len(one)} against {len(other)} points"
