"""Table of the packs and manifests in the cache, and removal of those not needed."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from experiments.data.cache import listing
from experiments.data.cache.listing import Entry, entries, manifests
from experiments.errors import DataError, pluralized
from experiments.repair.base import Finding

UNWANTED = ("left over", "corrupt")


def unwanted_in_cache(cache_dir: str) -> Iterator[Finding]:
    for entry in [*entries(cache_dir), *manifests(cache_dir)]:
        if entry.state in UNWANTED:
            yield Finding("cache", str(entry.path), entry.state, "prune=true fix=true removes it")


def show_cache(cache_dir: str, layout: str, *, prune: bool, fix: bool, older_than_days: float) -> None:
    """Prints all cache entries. `layout` is table, csv or json.

    `prune` marks entries that are left over, corrupt or unused for `older_than_days`; with `fix` they are removed.
    """
    found = [*entries(cache_dir), *manifests(cache_dir)]
    fates = [_fate(entry, older_than_days, fix=fix) if prune else "keep" for entry in found]
    if found or layout == "json":
        from experiments.cli.tables import write

        optional = ("made", "holds", "split" if prune else "prune", "name")
        write([_row(entry, fate) for entry, fate in zip(found, fates, strict=True)], layout, optional)
    if layout != "table":
        return
    marked = [entry for entry, fate in zip(found, fates, strict=True) if fate in ("would remove", "removed")]
    print(f"{Path(cache_dir).expanduser()} {'contained' if fix and prune else 'contains'} {_size(found)}.")
    if not prune:
        print("prune=true shows what can be removed.")
    elif fix:
        print(f"{_size(marked)} removed.")
    else:
        print(f"{_size(marked)} would be removed.\nNothing was changed: add fix=true to remove them.")


def _fate(entry: Entry, older_than_days: float, *, fix: bool) -> str:
    """Outcome for a pack or manifest: keep, would remove, removed or in use."""
    if entry.state == "in progress" or (entry.state not in UNWANTED and entry.idle_days < older_than_days):
        return "keep"
    if not fix:
        return "would remove"
    try:
        return "removed" if listing.prune(entry) else "in use"
    except OSError as error:
        raise DataError(
            f"'{entry.path}' cannot be removed: {error.strerror}. Expected a cache_dir that you can write to. "
            "Ask its owner, or set cache_dir."
        ) from error


def _row(entry: Entry, fate: str) -> dict[str, str]:
    return {
        "kind": entry.kind,
        "name": entry.path.name[:12],
        "state": entry.state,
        "source": entry.source,
        "split": entry.split,
        "holds": entry.shape,
        "MB": f"{entry.num_bytes / 1e6:.1f}",
        "made": datetime.fromtimestamp(entry.made).isoformat(" ", "minutes"),
        "last used": datetime.fromtimestamp(entry.last_used).isoformat(" ", "minutes"),
        "prune": fate,
    }


def _size(found: Sequence[Entry]) -> str:
    each = [pluralized(sum(entry.kind == kind for entry in found), kind) for kind in ("pack", "manifest")]
    return f"{' and '.join(each)} ({sum(entry.num_bytes for entry in found) / 1e6:,.1f} MB)"
