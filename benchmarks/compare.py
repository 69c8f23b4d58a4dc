"""Time of `experiments compare best=20`, compared with `mlflow.search_runs` over all runs.

    python benchmarks/compare.py [RUNS]

The runs, each with 40 parameters and 20 metrics, are inserted into the tables of a SQLite store. Both sides are timed
without their imports, the peak of their Python memory is measured in another round.
"""

import sqlite3
import sys
import tempfile
import tracemalloc
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
from measurement import cost, empty_store, show_ratio
from mlflow import MlflowClient
from omegaconf import OmegaConf

PARAMS, METRICS, DIGESTS = 40, 20, 2
BOUND_SECONDS = 3.0


def insert_runs(store: Path, count: int, *, seed: int = 0) -> str:
    """Inserts runs, every second one with other validation data, and returns the name of their experiment."""
    rates = np.random.default_rng(seed)
    name = f"many-{count}"
    experiment = int(MlflowClient(f"sqlite:///{store}").create_experiment(name, "file:///nowhere"))
    ids = [uuid.UUID(bytes=rates.bytes(16)).hex for _ in range(count)]
    runs, params, metrics, tags = [], [], [], []
    for number, run_id in enumerate(ids):
        time = 1_700_000_000_000 + number * 1000
        place = f"file:///nowhere/{run_id}/artifacts"
        named = (run_id, f"run-{number}", "LOCAL", "", "", "me", "FINISHED", time, time + 500, "", "active", place)
        runs.append((*named, experiment))
        params += [(f"group.key_{key:02}", str((number * 7 + key) % 5), run_id) for key in range(PARAMS)]
        values = {"best_val_accuracy": rates.random(), "best_epoch": number % 9, "seconds_per_epoch": rates.random()}
        values |= {f"metric_{key:02}": rates.random() for key in range(METRICS - len(values))}
        metrics += [(key, value, time, 1, 0, run_id) for key, value in values.items()]
        texts = {"mlflow.runName": f"run-{number}", "monitor.metric": "val_accuracy", "monitor.mode": "max"}
        texts |= {"data_digest": f"{(count - 1 - number) % DIGESTS:064}", "fingerprint.config": "0"}
        tags += [(key, value, run_id) for key, value in texts.items()]
    with closing(sqlite3.connect(store)) as database, database:
        columns = "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time"
        columns += ", source_version, lifecycle_stage, artifact_uri, experiment_id"
        database.executemany(f"INSERT INTO runs ({columns}) VALUES ({', '.join('?' * 13)})", runs)
        database.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", params)
        columns = "key, value, timestamp, step, is_nan, run_uuid"
        database.executemany(f"INSERT INTO latest_metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", metrics)
        database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
    return name


def peak(work: Callable[[], object]) -> float:
    """Peak of Python's memory during `work`, in MB."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found


def main(count: int) -> None:
    from experiments.comparison.side_by_side import compare

    with tempfile.TemporaryDirectory() as name:
        store = empty_store(Path(name))
        experiment = insert_runs(store, count)
        tracking = {"tracking_uri": f"sqlite:///{store}", "experiment_name": experiment}
        nothing = dict.fromkeys(("sweep", "filter", "note", "diff", "runs"))
        command = OmegaConf.create({"best": 20, "format": "json", "logging": tracking, **nothing})
        mlflow.set_tracking_uri(tracking["tracking_uri"])
        sides = {
            "experiments compare best=20": lambda: compare(command),
            "mlflow.search_runs": lambda: mlflow.search_runs(experiment_names=[experiment], max_results=count),
        }
        costs = {side: cost(work) for side, work in sides.items()}
        for side, work in sides.items():
            print(f"  {side}: {costs[side].wall:.2f} s, {costs[side].cpu:.2f} s of CPU time, {peak(work):.0f} MB")
    ours, all_runs = costs.values()
    show_ratio(f"compare best=20 of {count} runs", ours.cpu / all_runs.cpu, BOUND_SECONDS / all_runs.cpu)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
