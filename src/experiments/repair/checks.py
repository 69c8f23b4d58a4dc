"""All findings, one concern after the other, and their rows."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from experiments.cli.tables import write
from experiments.errors import ExperimentError, TrackingError
from experiments.repair.base import Finding, Treated, treat
from experiments.repair.journals import undelivered_journals
from experiments.repair.leftovers import left_over
from experiments.tracking.redaction import mask
from experiments.tracking.uris import has_store


def findings(folders: Sequence[Path], tracking_uri: str | None) -> Iterator[Finding]:
    """Each is repaired before the next is looked for: a delivered journal may end its run."""
    stored = tracking_uri is not None and has_store(tracking_uri)
    if stored:
        from experiments.repair.schema import old_schema

        yield from old_schema(str(tracking_uri))
    yield from undelivered_journals(folders, tracking_uri)
    if stored:
        yield from _in_store(folders, str(tracking_uri))
    yield from left_over(folders)


def _in_store(folders: Iterable[Path], tracking_uri: str) -> Iterator[Finding]:
    from experiments.repair.dead_runs import dead_runs, orphaned_folders
    from experiments.tracking.mlflow_store import existing_store

    try:
        client = existing_store(tracking_uri)
    except TrackingError as error:
        yield Finding("store", mask(tracking_uri), " ".join(str(error).split()))
        return
    yield from dead_runs(client)
    yield from orphaned_folders(client, folders)


def show(found: Iterable[Finding], layout: str, *, fix: bool, looked: str) -> None:
    """layout: table, csv or json; looked: where findings were looked for. Raises ExperimentError after a failure."""
    treated = [treat(each, fix=fix) for each in found]
    if treated or layout == "json":
        write([each.row() for each in treated], layout)
    if layout == "table":
        print(_summary(treated, looked))
    failed = sum(each.failed for each in treated)
    if failed:
        raise ExperimentError(f"{failed} of {len(treated)} could not be repaired: the rows that say 'failed' tell why.")


def _summary(treated: Sequence[Treated], looked: str) -> str:
    if not treated:
        return f"Nothing to repair: {looked}."
    repaired = sum(each.repaired for each in treated)
    waiting = sum(each.finding.repair is not None and not each.repaired and not each.failed for each in treated)
    told = f"{len(treated)} found ({looked})"
    if waiting:
        return f"{told}. Nothing was changed: add fix=true to repair {waiting}."
    return f"{told}; {repaired} repaired."
