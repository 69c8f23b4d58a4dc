"""Dead runs that are still RUNNING in the store, and output folders whose run is not in the store."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType

from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.errors import TrackingError
from experiments.repair.base import Finding
from experiments.repair.journals import close, deliver_journal, local_time
from experiments.repair.leftovers import size
from experiments.tracking.journal import first_event, undelivered
from experiments.tracking.liveness import heartbeat, is_alive, is_in_use, run_lock
from experiments.tracking.mlflow_store import absence, find_runs
from experiments.tracking.redaction import mask

IDENTITY = {"host", "pid", "heartbeat", "output_dir"}
"""Tags of all runs of this package. Other runs in the store are ignored."""


def dead_runs(client: MlflowClient, tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[Finding]:
    """Yields the RUNNING runs with these tags whose process has ended."""
    for run in find_runs(client, tags=tags, status="= 'RUNNING'"):
        if set(run.data.tags) >= IDENTITY and not is_alive(run):
            yield Finding(
                "run",
                str(run.info.run_id),
                f"RUNNING, but process {run.data.tags['pid']} on {run.data.tags['host']} is gone (last heartbeat "
                f"{local_time(heartbeat(run.data.tags))})",
                "makes it KILLED",
                partial(_end, client, run),
            )


def orphaned_folders(client: MlflowClient, folders: Iterable[Path]) -> Iterator[Finding]:
    """Yields folders whose run was tracked in this store and is no longer there.

    They are not removed, because they may contain the only copy of a run.
    """
    for folder in folders:
        started = first_event(folder)
        if started is None or started["tracking_uri"] != mask(client.tracking_uri) or is_in_use(folder):
            continue
        state = absence(client, started["run_id"])
        if state:
            yield Finding(
                "output folder",
                str(folder),
                f"its run {started['run_id']} {state} ({size(folder)})",
                "delete it if not needed",
            )


def _end(client: MlflowClient, run: Run) -> str:
    """Ends the run if it is still dead. Delivers its journal first, as that may contain the real end of the run."""
    run_id, folder = str(run.info.run_id), Path(run.data.tags["output_dir"])
    # The tags come from the store: a folder is touched only if it contains the journal of this run.
    here = (first_event(folder) or {}).get("run_id") == run_id and run.data.tags["host"] == socket.gethostname()
    if here and undelivered(folder):
        return deliver_journal(folder, client.tracking_uri)
    with run_lock(folder) if here else nullcontext():
        now = client.get_run(run_id)
        if now.info.status != "RUNNING":
            return str(now.info.status)
        if not here and is_alive(now):
            raise TrackingError(f"run {run_id} is alive again: a process works on it now.")
        return close(client, run_id)
