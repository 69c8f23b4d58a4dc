"""Lists and removes cache entries; imports only the standard library, so that `doctor` starts at once."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.data.cache.paths import MANIFESTS, META, UNFINISHED, lock_file, packs_folder, remove
from experiments.files import locked

# Seconds after which an unfinished manifest counts as left over; writing one takes less than a second.
_ABANDONED = 60


@dataclass(frozen=True)
class Entry:
    """A cache entry: a pack, or a manifest (the stored results of a scan).

    `state` is complete, corrupt, in progress, left over (by a killed process), or unfinished if it is unknown whether a
    process still writes it. `made` and `last_used` are in seconds since 1970. `shape` is, for example,
    `640 x 160 x 160 x 3 uint8` or `1000 files`.
    """

    kind: str
    path: Path
    state: str
    num_bytes: int
    made: float
    last_used: float
    source: str = ""
    split: str = ""
    shape: str = ""

    @property
    def idle_days(self) -> float:
        return max(0.0, time.time() - self.last_used) / 86_400


def entries(cache_dir: str) -> list[Entry]:
    """Returns all packs of the cache, complete or not, the longest unused first."""
    return _listed(packs_folder(cache_dir), Path.is_dir, _pack)


def manifests(cache_dir: str) -> list[Entry]:
    """Returns the stored scan results of all folders, complete or not, the longest unused first."""
    return _listed(Path(cache_dir).expanduser() / MANIFESTS, Path.is_file, _manifest)


def _listed(folder: Path, wanted: Callable[[Path], bool], entry: Callable[[Path], Entry]) -> list[Entry]:
    found = []
    for path in filter(wanted, folder.iterdir() if folder.is_dir() else ()):
        with suppress(FileNotFoundError):  # renamed or removed by another process
            found.append(entry(path))
    return sorted(found, key=lambda each: each.last_used)


def prune(entry: Entry) -> bool:
    """Removes one pack or manifest; returns False if another process is writing or removing it."""
    if entry.kind == "manifest":
        entry.path.unlink(missing_ok=True)
        return True
    pack = entry.path.with_name(entry.path.name.split(".")[0])
    with locked(lock_file(pack), wait=False, remove=True) as free:
        if not free:
            return False
        if entry.path.exists():
            shutil.rmtree(entry.path) if entry.path.suffix == UNFINISHED else remove(entry.path)
    return True


def _pack(path: Path) -> Entry:
    size = sum(file.stat().st_blocks * 512 for file in path.iterdir())  # on disk: unfinished packs are sparse
    changed = path.stat().st_mtime
    if path.suffix == UNFINISHED:
        return Entry("pack", path, _state_of_unfinished(path), size, changed, changed)
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        about, last_used = meta["about"], (path / META).stat().st_mtime
        shape = f"{' x '.join(map(str, meta['shape']))} {meta['dtype']}"
        source, split = about.get("source", ""), about.get("split", "")
        return Entry("pack", path, "complete", size, meta["made"], last_used, source, split, shape)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Entry("pack", path, "corrupt", size, changed, changed)


def _state_of_unfinished(path: Path) -> str:
    pack = path.with_name(path.name.split(".")[0])
    try:
        with locked(lock_file(pack), wait=False, remove=True) as free:
            return "left over" if free else "in progress"
    except OSError:
        return "unfinished"  # the lock cannot be tried in a folder that this user cannot write


def _manifest(path: Path) -> Entry:
    status = path.stat()
    size, used = status.st_blocks * 512, status.st_mtime
    with path.open("rb") as file:
        first = file.readline(10_000)
    if path.suffix == UNFINISHED:
        state = "left over" if time.time() - used > _ABANDONED else "in progress"
        return Entry("manifest", path, state, size, used, used)
    try:
        head = json.loads(first)
        held = "1 file" if head["count"] == 1 else f"{head['count']} files"
        return Entry("manifest", path, "complete", size, head["made"], used, source=head["root"], shape=held)
    except (ValueError, KeyError, TypeError):
        return Entry("manifest", path, "corrupt", size, used, used)
