"""Locks, atomic writes, digests and paths."""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from io import IOBase
from pathlib import Path

from experiments.errors import DataError, ExperimentError

TEMPORARY = ".tmp"
_creates = ContextVar("creates", default=True)


def lock(file: int | IOBase, *, wait: bool = True) -> bool:
    """Locks an open file until it is closed or its process ends. Returns False if already locked and `wait` is off."""
    try:
        import fcntl  # Exists on Unix only; code that takes no lock runs on other systems too.
    except ModuleNotFoundError as error:
        raise ExperimentError(f"files cannot be locked on {sys.platform}: expected Linux, macOS or WSL.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, *, wait: bool = True, remove: bool = False) -> Iterator[bool]:
    """Locks the file `path` during the block. Yields False if it is already locked and `wait` is off.

    `remove` deletes the file at the end of the block.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        held = lock(descriptor, wait=wait)
        if not held or _is_open_at(path, descriptor):
            break
        # The previous holder deleted the file after it was opened here. A lock on a deleted file excludes no process.
        os.close(descriptor)
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
    """Returns True if any process, including this one, has locked the file `path`. The folder may be read-only."""
    if not path.is_file():  # A pipe would block.
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextmanager
def only_existing_files(active: bool) -> Iterator[None]:
    """If `active`, `exclusive` raises DataError: a record must not choose where data is downloaded or drawn.

    An inner block with `active` false does not lift the ban of an outer one.
    """
    token = _creates.set(_creates.get() and not active)
    try:
        yield
    finally:
        _creates.reset(token)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process on this machine creates `path`, and excludes other processes during the block.

    The system releases the lock of a killed process. Raises DataError if the folder of `path` is not writable.
    """
    if not _creates.get():
        raise DataError(
            f"data.path='{path}' does not contain the data of the run. Expected existing data: nothing is "
            "downloaded or drawn at a path that a record names. Pass data=... data.path=..."
        )
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.parent / f".{path.name}.lock"))
        except OSError as error:
            raise DataError(
                f"data.path='{path}' cannot be created: {error.strerror}. Set data.path to a path in a writable folder."
            ) from error
        yield


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path. If the block succeeds, it is synced to disk and replaces `path`; else it is deleted.

    `temporary` must be in the same folder as `path`. None means `path` with the suffix TEMPORARY.
    """
    temporary = temporary or path.with_name(path.name + TEMPORARY)
    _remove(temporary)
    try:
        yield temporary
        sync(temporary)
        if path.is_dir():  # Only an empty folder can be replaced.
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `path` if the block succeeds. Must be used within `exclusive(path)`."""
    with replacing(path, path.with_name(f".{path.name}.partial")) as folder:
        folder.mkdir()
        yield folder


def write_atomically(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Replaces a file completely or not at all, even if the machine stops. Only its owner can read a `private` one."""
    with replacing(path) as temporary:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def drop_torn_line(path: Path) -> None:
    """Removes an incomplete last line, left by a killed process or a full disk, so that new lines start on their own.

    No other process may write to the file at the same time.
    """
    content = path.read_bytes() if path.exists() else b""
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flushes a file, or the list of names of a folder, from the operating system's cache to the disk."""
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


@contextmanager
def literal(path: str | Path) -> Iterator[str]:
    """Yields the path without folders whose names TensorFlow would read as a pattern, and find or delete others."""
    folder, name = os.path.split(path)
    if not re.search(r"[*?\[\\]", folder):
        yield str(path)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
