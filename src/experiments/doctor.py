"""Shows what is left of dead runs and in the cache, and repairs it: `python -m experiments.doctor fix=true`."""

import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path

import hydra
from omegaconf import DictConfig

from experiments.cli.entry import one_line_errors, run_command
from experiments.config import check_values, register
from experiments.config.registry import CONF
from experiments.data.cache.listing import Entry, entries, manifests, prune
from experiments.errors import DataError
from experiments.repair.base import Finding
from experiments.repair.journals import undelivered_journals
from experiments.repair.leftovers import output_folders

register()

BARE_WORDS = ("sync", "prune")
"""`doctor sync` is what people type; Hydra's grammar wants sync=true."""


@hydra.main(version_base="1.3", config_path=CONF, config_name="doctor")
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    if not cfg.prune:
        _runs(cfg)
    if not cfg.sync and (cfg.prune or cfg.format == "table"):
        _cache(cfg)


def _runs(cfg: DictConfig) -> None:
    """Dead runs and all that they left; with `sync` undelivered journals alone, which are sent without `fix` too."""
    from experiments.repair.checks import findings, show
    from experiments.sweeps.queue import damaged_queues

    folders = output_folders(cfg.folders)
    if cfg.sync:
        found = undelivered_journals(folders, cfg.logging.tracking_uri)
    else:
        runs = chain(findings(folders, cfg.logging.tracking_uri), damaged_queues(cfg.folders))
        found = _with_packs(runs, cfg)
    noun = "output folder" if len(folders) == 1 else "output folders"
    looked = f"{len(folders)} {noun} below {', '.join(cfg.folders)}"
    show(found, cfg.format, fix=cfg.fix or cfg.sync, looked=looked)


def _with_packs(found: Iterator[Finding], cfg: DictConfig) -> Iterator[Finding]:
    """The table of the cache follows on a terminal; programs get all in one."""
    yield from found
    for entry in [*entries(cfg.cache_dir), *manifests(cfg.cache_dir)] if cfg.format != "table" else []:
        if entry.state in ("left over", "damaged"):
            yield Finding("cache", str(entry.path), entry.state, "prune=true fix=true removes it")


def _cache(cfg: DictConfig) -> None:
    found = [*entries(cfg.cache_dir), *manifests(cfg.cache_dir)]
    fates = [_fate(entry, cfg) for entry in found]
    if found or cfg.format == "json":
        from experiments.cli.tables import write

        write([_row(entry, fate) for entry, fate in zip(found, fates, strict=True)], cfg.format)
    if cfg.format == "table":
        print(_summary(found, fates, cfg))


def _fate(entry: Entry, cfg: DictConfig) -> str:
    """What becomes of one pack or manifest: keep, would remove, removed or in use."""
    unwanted = entry.state in ("left over", "damaged") or entry.idle_days >= cfg.older_than_days
    if not cfg.prune or not unwanted or entry.state == "being made":
        return "keep"
    if not cfg.fix:
        return "would remove"
    try:
        return "removed" if prune(entry) else "in use"
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


def _summary(found: list[Entry], fates: list[str], cfg: DictConfig) -> str:
    marked = [entry for entry, fate in zip(found, fates, strict=True) if fate in ("would remove", "removed")]
    total = f"{Path(cfg.cache_dir).expanduser()} holds {_size(found)}"
    if not cfg.prune:
        return f"{total}. prune=true shows what can go."
    if cfg.fix:
        return f"{total} before; {_size(marked)} removed."
    return f"{total}; {_size(marked)} would be removed. Nothing was changed: add fix=true to remove them."


def _size(found: list[Entry]) -> str:
    counts = {kind: sum(entry.kind == kind for entry in found) for kind in ("pack", "manifest")}
    each = [f"{count} {kind if count == 1 else kind + 's'}" for kind, count in counts.items()]
    return f"{' and '.join(each)} ({sum(entry.num_bytes for entry in found) / 1e6:,.1f} MB)"


if __name__ == "__main__":
    sys.argv[1:] = [f"{word}=true" if word in BARE_WORDS else word for word in sys.argv[1:]]
    run_command(main, "doctor")
