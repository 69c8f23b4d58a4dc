"""File names in a `checkpoints/` folder. Imports only the standard library, so that `doctor` starts quickly."""

import re
from collections.abc import Iterator
from pathlib import Path

COMMIT, ARRAYS = ".json", ".npz"
"""Suffixes of the file that commits a checkpoint, and of the arrays in its state."""
CHECKPOINTS = "checkpoints"
"""Name of the folder in a run folder, and of the artifact folder in the tracking store."""
BEST = "best"
"""Name of the folder of the best weights, and of the checkpoint in it."""


def committed(directory: Path) -> Iterator[tuple[int, Path]]:
    """Yields the number and the commit file of each committed checkpoint."""
    for path in directory.glob(f"*-*{COMMIT}"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit():
            yield int(number), path


def latest_committed(directory: Path) -> Path | None:
    """Returns the path prefix of the newest committed checkpoint; None if there is none."""
    found = sorted(committed(directory))
    return found[-1][1].with_suffix("") if found else None


def last_checkpoint(kind: str, prefix: str | Path | None) -> str:
    """Returns a sentence about the last checkpoint for error messages. `kind` is an adjective, such as "valid"."""
    return f"No {kind} checkpoint was written before." if prefix is None else f"The last {kind} checkpoint is {prefix}."


def uncommitted(directory: Path, name: str | None = None) -> list[Path]:
    """Finds files of uncommitted checkpoints `name`-NUMBER (None: of any name), and TensorFlow's `_temp` folders.

    A committed checkpoint has a `_temp` folder if a process was killed during an earlier attempt to write it. Only the
    process that owns the folder may delete these paths, because a checkpoint that is being written looks the same.
    """
    # A commit file without an index is left over: TensorFlow's manager has deleted the checkpoint.
    names = {path.stem for _, path in committed(directory) if path.with_suffix(".index").exists()}
    pattern = re.compile(rf"({'.+' if name is None else re.escape(name)}-\d+)(_temp|\..+)")
    found = [(path, pattern.fullmatch(path.name)) for path in sorted(directory.glob("*"))]
    return [path for path, owner in found if owner and (owner[2] == "_temp" or owner[1] not in names)]
