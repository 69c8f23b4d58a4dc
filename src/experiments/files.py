"""Locks, atomic writes and digests."""

import hashlib
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


_LOCK = ".lock"


def try_lock(pack: Path) -> int | None:
    """A descriptor that keeps other makers of `pack` out until `unlock` or the end of its process; None when taken."""
    import fcntl  # Unix only, as are the calls that read a pack

    path = pack.with_name(pack.name + _LOCK)
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass  # its holder took the file away between our two looks at it
        os.close(lock)


def unlock(pack: Path, lock: int) -> None:
    pack.with_name(pack.name + _LOCK).unlink(missing_ok=True)
    os.close(lock)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Whole or not at all, also when the process or the machine ends in between."""
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


TEMPORARY = ".tmp"
