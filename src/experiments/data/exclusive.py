"""Makes a folder once, whole or not at all, however many processes ask for it at the same time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import DataError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process of this machine makes `path`; a killed process lets go by itself.

    Raises DataError when the folder around `path` cannot be written.
    """
    import fcntl  # Unix only: what needs no lock works elsewhere

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.parent / f".{path.name}.lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise DataError(
            f"data.path='{path}' cannot be made: {error.strerror}. Set data.path to a place you can write to."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `path` when the block ends well; to be used within `exclusive`."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
