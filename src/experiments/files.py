"""Locks, atomic writes and digests."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import IOBase
from pathlib import Path

from experiments.errors import DataError

TEMPORARY = ".tmp"


def lock(file: int | IOBase, *, shared: bool = False, wait: bool = True) -> bool:
    """Locks an open file until it is closed or its process ends; returns False if another has it and `wait` is off."""
    import fcntl  # Unix only: what needs no lock works elsewhere

    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, mode if wait else mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, remove: bool = False) -> Iterator[bool]:
    """Holds the lock file `path` within the block; yields False if another process has it and `wait` is off.

    shared: with others that share it; remove: the file is removed at the end.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        held = lock(descriptor, shared=shared, wait=wait)
        if not held or _is_open_at(path, descriptor):
            break
        os.close(descriptor)  # the holder before has removed the file since it was opened here
    try:
        yield held
    finally:
        if held and remove:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process, perhaps this one, holds the lock file `path`, which may be in a read-only folder."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process of this machine makes `path`; a killed process lets go by itself.

    Raises DataError when the folder around `path` cannot be written.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.parent / f".{path.name}.lock"))
        except OSError as error:
            raise DataError(
                f"data.path='{path}' cannot be made: {error.strerror}. Set data.path to a place you can write to."
            ) from error
        yield


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yields a path that takes the place of `path`, and is on the disk, when the block ends well; else it is removed.

    temporary: that path, which must be in the same folder.
    """
    temporary = temporary or path.with_name(path.name + TEMPORARY)
    _remove(temporary)
    try:
        yield temporary
        sync(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `path` when the block ends well; to be used within `exclusive`."""
    with replacing(path, path.with_name(f".{path.name}.partial")) as folder:
        folder.mkdir()
        yield folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes all or nothing, also when the process or the machine ends in between."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def drop_torn_line(path: Path) -> None:
    """Removes the half line left by a killed process or a full disk, which the next line would be joined to.

    To be called while no other process writes.
    """
    content = path.read_bytes() if path.exists() else b""
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Returns when the file, or the folder's list of names, is on the disk and not only with the operating system."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
