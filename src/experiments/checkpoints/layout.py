"""Which files of a `checkpoints/` folder are what; standard library only, so that `doctor` answers at once."""

import re
from collections.abc import Iterator
from pathlib import Path

COMMIT, ARRAYS = ".json", ".npz"
CHECKPOINTS = "checkpoints"
"""The folder in a run's output folder, and the artifact in its store."""
BEST = "best"
"""The folder of the best weights, and the name of the checkpoint in it."""


def committed(directory: Path) -> Iterator[tuple[int, Path]]:
    """(number, seal) of each sealed checkpoint."""
    for path in directory.glob(f"*-*{COMMIT}"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit():
            yield int(number), path


def latest_committed(directory: Path) -> Path | None:
    """The path prefix of the newest sealed checkpoint."""
    found = sorted(committed(directory))
    return found[-1][1].with_suffix("") if found else None


def last_checkpoint(kind: str, prefix: str | Path | None) -> str:
    """A sentence for errors. kind: what checkpoints count, such as "whole"; prefix: of the last one."""
    return f"No {kind} checkpoint was written before." if prefix is None else f"The last {kind} checkpoint is {prefix}."


def uncommitted(directory: Path, name: str | None = None) -> list[Path]:
    """What belongs to no sealed checkpoint `name`-NUMBER (None: of any name), and TensorFlow's `_temp` folders.

    Those of a sealed one too: a process was killed in an earlier attempt at it. To be taken away by the owner of the
    folder alone: what is being written looks the same.
    """
    names = {path.stem for _, path in committed(directory) if path.with_suffix(".index").exists()}
    pattern = re.compile(rf"({'.+' if name is None else re.escape(name)}-\d+)(_temp|\..+)")
    found = [(path, pattern.fullmatch(path.name)) for path in sorted(directory.glob("*"))]
    return [path for path, owner in found if owner and (owner[2] == "_temp" or owner[1] not in names)]
