"""Many runs in one experiment, inserted into the tables of a SQLite store."""

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

PARAMS, METRICS, DIGESTS = 40, 20, 2


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
