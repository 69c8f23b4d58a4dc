"""Output folders of runs, and unfinished files that killed processes left in them."""

import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from experiments.checkpoints.layout import BEST, CHECKPOINTS, committed, uncommitted
from experiments.checkpoints.uploads import stale
from experiments.files import TEMPORARY
from experiments.repair.base import Finding
from experiments.tracking.journal import journal_file
from experiments.tracking.liveness import LOCK, is_in_use, run_lock

OWN = frozenset({CHECKPOINTS, "tensorboard", "config", "figures", "images", "model", ".hydra", ".uploads"})
"""Folders within a run folder that contain no other runs."""


def output_folders(roots: Iterable[str]) -> list[Path]:
    """Folders of runs at and below `roots`, sorted."""
    found = []
    for root in roots:
        for path, folders, files in os.walk(Path(root).expanduser().absolute()):
            folders[:] = [name for name in folders if name not in OWN]
            if {LOCK, journal_file(Path()).name} & set(files):
                found.append(Path(path))
    return sorted(found)


def left_over(folders: Iterable[Path]) -> Iterator[Finding]:
    """Yields unfinished checkpoints and uploads in folders that no process uses."""
    for folder in folders:
        found = _leftovers(folder)
        if found and not is_in_use(folder):
            names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
            state = f"{names} ({sum(map(_bytes, found)) / 1e6:,.1f} MB), which no process works on"
            yield Finding("left over", str(folder), state, "removes it", partial(_remove, folder))


def _remove(folder: Path) -> str:
    """Removes the leftovers. They are searched again under the lock, because the run may have been resumed."""
    with run_lock(folder):
        found = _leftovers(folder)
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"removed {len(found)}"


def _leftovers(folder: Path) -> list[Path]:
    checkpoints = folder / CHECKPOINTS
    # Without any commit the checkpoints may be complete ones of an older version, which did not commit them.
    unfinished = uncommitted(checkpoints) if any(True for _ in committed(checkpoints)) else []
    temporary = [*checkpoints.glob(f"*{TEMPORARY}"), *checkpoints.glob(f"{BEST}/*{TEMPORARY}")]
    temporary += [path for path in checkpoints.glob(f"{BEST}/*_temp") if path.is_dir()]
    found = [*dict.fromkeys([*unfinished, *temporary]), *stale(folder)]
    return [path for path in found if path.resolve().is_relative_to(folder.resolve())]  # links may lead elsewhere


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


def size(folder: Path) -> str:
    return f"{_bytes(folder) / 1e6:,.1f} MB"
