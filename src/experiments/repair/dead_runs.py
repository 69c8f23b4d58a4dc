"""Dead runs that are still RUNNING in the store, and output folders whose run is not in the store."""

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
from experiments.tracking.liveness import heartbeat, is_alive, is_at_work, is_here, is_in_use, run_lock, silence
from experiments.tracking.mlflow_store import absence, find_runs
from experiments.tracking.redaction import mask

IDENTITY = {"host", "pid", "heartbeat", "output_dir"}
"""Tags of all runs of this package. Other runs in the store are ignored."""


def dead_runs(client: MlflowClient, tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[Finding]:
    """Yields the RUNNING runs with these tags whose process has ended, or may have ended on another machine."""
    running = [run for run in find_runs(client, tags=tags, status="= 'RUNNING'") if set(run.data.tags) >= IDENTITY]
    found = [run for run in running if not is_alive(run)]
    for run in found:
        silence(run.info.run_id, run.data.tags)  # from now on, so that the repairs wait for all runs at the same time
    for run in found:
        tags = run.data.tags
        seen = local_time(heartbeat(tags))
        gone, silent = f"is gone (last heartbeat {seen})", f"gave no sign of life since {seen} by its own clock"
        state = f"RUNNING, but process {tags['pid']} on {tags['host']} {gone if is_here(tags) else silent}"
        yield Finding("run", str(run.info.run_id), state, "makes it KILLED", partial(_end, client, run))


def orphaned_folders(client: MlflowClient, folders: Iterable[Path]) -> Iterator[Finding]:
    """Yields folders whose run was tracked in this store and is no longer there.

    They are not removed, because they may contain the only copy of a run.
    """
    for folder in folders:
        started = first_event(folder)
        if started is None or started["tracking_uri"] != mask(client.tracking_uri) or is_in_use(folder):
            continue
        if reason := absence(client, started["run_id"]):
            state = f"its run {started['run_id']} {reason} ({size(folder)})"
            yield Finding("output folder", str(folder), state, "delete it if not needed")


def _end(client: MlflowClient, run: Run) -> str:
    """Ends the run if it is dead, on another machine after waiting for a heartbeat.

    Delivers its journal first, as that may contain the real end of the run.
    """
    run_id, folder = str(run.info.run_id), Path(run.data.tags["output_dir"])
    # The tags come from the store: a folder is touched only if it contains the journal of this run.
    here = (first_event(folder) or {}).get("run_id") == run_id and is_here(run.data.tags)
    if here and undelivered(folder):
        return deliver_journal(folder, client.tracking_uri)
    if not here and is_at_work(client, run):
        raise TrackingError(f"run {run_id} is alive again: a process works on it now.")
    with run_lock(folder) if here else nullcontext():
        status = str(client.get_run(run_id).info.status)
        return close(client, run_id) if status == "RUNNING" else status
