"""Runs that the store takes for running, though nobody works on them, and folders of runs that it does not have."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from experiments.errors import TrackingError
from experiments.repair.base import Finding
from experiments.repair.journals import close, deliver_journal, local_time
from experiments.repair.leftovers import size
from experiments.tracking.journal import first_event, journal_file, undelivered
from experiments.tracking.liveness import is_alive, is_in_use, run_lock
from experiments.tracking.mlflow_store import find_runs
from experiments.tracking.redaction import mask

IDENTITY = {"host", "pid", "heartbeat", "output_dir"}
"""Tags of a run of this package; others that share the store are left alone."""


def dead_runs(client: MlflowClient, tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[Finding]:
    """tags: which the runs have too."""
    for run in find_runs(client, tags=tags, status="= 'RUNNING'"):
        if set(run.data.tags) >= IDENTITY and not is_alive(run):
            yield Finding(
                "run",
                str(run.info.run_id),
                f"RUNNING, but process {run.data.tags['pid']} on {run.data.tags['host']} is gone (last sign "
                f"{local_time(float(run.data.tags['heartbeat']))})",
                "makes it KILLED",
                partial(_end, client, run),
            )


def orphaned_folders(client: MlflowClient, folders: Iterable[Path]) -> Iterator[Finding]:
    """Of this store alone: what another one has cannot be seen from here. Listed only: they may be all that is left."""
    for folder in folders:
        started = first_event(folder)
        if started is None or started["tracking_uri"] != mask(client.tracking_uri) or is_in_use(folder):
            continue
        state = _absence(client, started["run_id"])
        if state:
            yield Finding(
                "output folder", str(folder), f"its run {started['run_id']} {state} ({size(folder)})", "yours to remove"
            )


def _end(client: MlflowClient, run: Run) -> str:
    """Looks again, and first delivers what the process left: that may tell how the run ended."""
    run_id, folder = str(run.info.run_id), Path(run.data.tags["output_dir"])
    here = folder.is_dir() and run.data.tags["host"] == socket.gethostname()
    if here and journal_file(folder).exists() and undelivered(folder):
        return deliver_journal(folder, client.tracking_uri)
    with run_lock(folder) if here else nullcontext():
        now = client.get_run(run_id)
        if now.info.status != "RUNNING":
            return str(now.info.status)
        if not here and is_alive(now):
            raise TrackingError(f"run {run_id} is alive again: a process works on it now.")
        return close(client, run_id)


def _absence(client: MlflowClient, run_id: str) -> str:
    """Why the run is not to be seen in the store; empty where it is."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise TrackingError(
                f"{mask(client.tracking_uri)} does not tell of run {run_id}: {error.message}"
            ) from error
        return "is no longer in the store"
    return "is deleted in MLflow" if run.info.lifecycle_stage == "deleted" else ""
