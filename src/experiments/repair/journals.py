"""Delivery of events that a run could not send, from the journal in its output folder."""

import getpass
import socket
import time
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import TrackingError, reading
from experiments.files import write_atomically
from experiments.repair.base import Finding
from experiments.tracking.journal import Event, events, first_event, journal_file, rejected_file, undelivered
from experiments.tracking.liveness import heartbeat, is_in_use, run_lock
from experiments.tracking.redaction import mask
from experiments.tracking.uris import without_login

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOST = "lost_run_id"  # tag of a run that replaces one that the store has lost
_place = itemgetter("host", "output_dir")


def undelivered_journals(
    folders: Iterable[Path], tracking_uri: str | None, *, refill: bool = False
) -> Iterator[Finding]:
    """Yields undelivered journals. Their runs are searched in `tracking_uri`.

    `refill` creates runs again that the store, or its missing database, has lost, and delivers their complete journals.
    """
    for folder in folders:
        if not journal_file(folder).is_file():
            continue
        rejected = rejected_file(folder)
        if rejected.is_file() and (count := len(rejected.read_bytes().splitlines())):
            yield Finding("journal", str(folder), f"{count} events refused: see {rejected.name}")
        left = undelivered(folder)
        if left and is_in_use(folder):
            yield Finding("journal", str(folder), f"{left} events wait", "its own process delivers them")
        elif left or (refill and not is_in_use(folder)):
            send = partial(deliver_journal, folder, tracking_uri, refill=refill)
            yield Finding("journal", str(folder), f"{left} events not delivered", "delivers them", send)


def deliver_journal(folder: Path, tracking_uri: str | None, *, refill: bool = False) -> str:
    """Sends the waiting events of a dead run and ends it. Raises TrackingError if that is not possible."""
    from experiments.tracking.mlflow_store import existing_run, existing_store, open_store

    with run_lock(folder), reading(f"the journal in '{folder}'"):
        started = first_event(folder)
        if started is None:
            raise TrackingError(f"the journal in '{folder}' does not begin with the start of a run. Remove it by hand.")
        try:
            client = open_store(tracking_uri) if refill and tracking_uri else existing_store(tracking_uri)
            run_id = _refilled(folder, client, started) if refill else started["run_id"]
            run = existing_run(client, run_id, writes=True)
        except TrackingError as error:
            # Only shown: the address of another's journal may lead anywhere.
            named = mask(str(started["tracking_uri"]))
            raise TrackingError(f"{error} The journal names the store {named!r:.200}.") from error
        if not _is_current(folder, run):
            place = " on ".join(str(run.data.tags.get(name)) for name in ("output_dir", "host"))
            return f"not sent: the run is in {place}. If that folder was moved here, set these tags of the run"
        return _send(folder, client, run.info.run_id)


def _refilled(folder: Path, client: "MlflowClient", started: Event) -> str:
    """Creates the run of the journal again if the store has lost it, and returns its id, now that in the journal."""
    from experiments.tracking.mlflow_store import absence, find_runs, get_or_create_experiment

    lost, store = started["run_id"], without_login(str(started["tracking_uri"]))
    same = store == mask(without_login(client.tracking_uri)) and "experiment" in started
    if not same or not absence(client, lost).endswith("in the store"):
        return str(lost)
    found = next(find_runs(client, started["experiment"], {LOST: lost}, newest=1), None)  # of a refill that was killed
    tags = next(events(folder, "tags"))["values"] | {LOST: lost}
    experiment = get_or_create_experiment(client, started["experiment"])
    run_id = (found or client.create_run(experiment, started["time"], tags)).info.run_id
    old, new = (f'"run_id":"{each}"'.encode() for each in (lost, run_id))
    lines = journal_file(folder).read_bytes().splitlines(keepends=True)
    changed = [line.replace(old, new) if line.startswith(b'{"event":"start"') else line for line in lines]
    (folder / "journal.offset").unlink(missing_ok=True)  # first, as the new run has none of the events
    write_atomically(journal_file(folder), b"".join(changed))
    return str(run_id)


def _send(folder: Path, client: "MlflowClient", run_id: str) -> str:
    from experiments.tracking.journal import Unavailable, deliver
    from experiments.tracking.mlflow_sink import MlflowSink

    left = undelivered(folder)
    try:
        deliver(folder, MlflowSink(client, run_id, root=folder))
    except Unavailable as error:
        raise TrackingError(f"{undelivered(folder)} of {left} events still wait: {error}") from error
    status = client.get_run(run_id).info.status
    # The journal of a killed process has no end event.
    return f"delivered {left}; run {run_id} is {close(client, run_id) if status == 'RUNNING' else status}"


def _is_current(folder: Path, run: "Run") -> bool:
    """Returns False if the run has another folder, which may have resumed it and repeated steps of this journal."""
    places = [_place(event["values"]) for event in events(folder, "tags") if "output_dir" in event["values"]]
    # The tags decide: anyone can write a journal with the id of this run.
    own = Path(run.data.tags.get("output_dir", "/")).resolve() == folder.resolve()
    return own and (run.data.tags.get("host") == socket.gethostname() or _place(run.data.tags) in places)


def close(client: "MlflowClient", run_id: str) -> str:
    """Ends a dead run at the time of its last heartbeat, and returns its new status."""
    from experiments.tracking.mlflow_store import end_run

    seen = heartbeat(client.get_run(run_id).data.tags)
    finder = f"experiments.doctor, {getpass.getuser()} on {socket.gethostname()}, {local_time(time.time())}"
    client.set_tag(run_id, "found_dead_by", finder)
    reason = f"its process ended without closing the run; last heartbeat {local_time(seen)}"
    end_run(client, run_id, "KILLED", reason, end_time=int(seen * 1000) or 1)
    return "KILLED"


def local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
