"""Runs all checks, repairs their findings and prints them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from experiments.cli.safe_text import safe_text
from experiments.errors import ExperimentError, TrackingError, pluralized
from experiments.repair.base import Finding, Treated, treat
from experiments.repair.cached_data import unwanted_in_cache
from experiments.repair.journals import undelivered_journals
from experiments.repair.leftovers import left_over, output_folders
from experiments.tracking.redaction import mask
from experiments.tracking.uris import has_store


def check_runs(
    roots: Sequence[str],
    tracking_uri: str | None,
    cache_dir: str,
    layout: str,
    others: Iterable[Finding],
    *,
    fix: bool,
    sync: bool,
    refill: bool,
) -> None:
    """Prints the remains of dead runs at and below `roots`, and `others`. Raises ExperimentError if a repair fails.

    `layout` is table, csv or json. csv and json include the cache, which has its own table otherwise. `fix` repairs the
    findings. `sync` only sends undelivered journals, even without `fix`; `refill` first creates lost runs again.
    """
    folders = output_folders(roots)
    if sync or refill:
        found = undelivered_journals(folders, tracking_uri, refill=refill)
    else:
        cached = unwanted_in_cache(cache_dir) if layout != "table" else ()
        found = chain(_findings(folders, tracking_uri), others, cached)
    treated = [treat(each, fix=fix or sync or refill) for each in found]
    if treated or layout == "json":
        from experiments.cli.tables import write

        write([each.row() for each in treated], layout, wrapped=("state", "repair"))
    if layout == "table":
        looked = f"{pluralized(len(folders), 'output folder')} below {', '.join(roots)}"
        print(safe_text(_summary(treated, looked)))
    failed = sum(each.failed for each in treated)
    if failed:
        raise ExperimentError(
            f"{failed} of {len(treated)} could not be repaired: see the rows with 'failed' for the reason."
        )


def _findings(folders: Sequence[Path], tracking_uri: str | None) -> Iterator[Finding]:
    """Yields findings one by one, so that each is repaired before the next check.

    The order matters: a delivered journal may end its run, which is then no dead run any more.
    """
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


def _summary(treated: Sequence[Treated], looked: str) -> str:
    if not treated:
        return f"Nothing to repair: {looked}."
    repaired = sum(each.repaired for each in treated)
    waiting = sum(each.finding.repair is not None and not each.repaired and not each.failed for each in treated)
    found = f"{len(treated)} found ({looked})"
    if waiting:
        return f"{found}. Nothing was changed: add fix=true to repair {waiting}."
    return f"{found}; {repaired} repaired."
