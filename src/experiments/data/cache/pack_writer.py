"""Writes packs row by row during an epoch, one process at a time; a pack gets its name only when it is complete."""

import atexit
import errno
import io
import json
import os
import shutil
import threading
import time
import zlib
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from experiments import DISTRIBUTION
from experiments.data.cache import paths
from experiments.data.cache.pack import FORMAT, Indices, PackSpec, checksum
from experiments.data.cache.paths import CHECKSUMS, DATA, LABELS, META
from experiments.data.cache.rows import Array, FileRows
from experiments.files import locked, sync, write_atomically

_MARGIN = 64 * 2**20  # bytes that stay free on the disk for other programs


class PackWriter:
    """A pack that this process is writing; any thread may write any row, any number of times.

    Rows can be read when all are written. A background thread then commits the pack by giving it its final name.
    """

    def __init__(self, folder: Path, contents: PackSpec, lock: ExitStack) -> None:
        """Takes ownership of `lock`. Raises OSError if the folder cannot be written or has no space."""
        self.folder = folder
        self.failure: OSError | None = None
        self._contents = contents
        self._lock: ExitStack | None = lock
        self._partial = paths.unfinished(folder)
        self._guard = threading.Lock()
        self._committing: threading.Thread | None = None
        self._committed = False
        self._checksums = np.zeros(len(contents.labels), np.uint32)
        self._written = np.zeros(len(contents.labels), bool)
        try:
            self._rows = self._begin()
        except OSError:
            self._release()
            raise

    def _begin(self) -> FileRows:
        for left in paths.leftovers(self.folder):
            shutil.rmtree(left, ignore_errors=True)
        self._partial.mkdir()
        (self._partial / DATA).write_bytes(self._contents.header)
        rows = self._contents.rows(self._partial, os.O_RDWR)
        os.ftruncate(rows.descriptor, self._contents.num_bytes)
        return rows

    @property
    def open(self) -> bool:
        """True until the pack is committed or given up."""
        return self._lock is not None

    @property
    def complete(self) -> bool:
        return bool(self._written.all())

    def missing(self) -> Indices:
        return np.flatnonzero(~self._written)

    def write(self, positions: Indices, rows: Array) -> None:
        """Raises OSError if the disk is full; the incomplete pack is then removed, and later rows are ignored."""
        if self._lock is None or self._committing is not None:
            return
        try:
            for position, row in zip(positions.tolist(), rows, strict=True):
                self._rows.write(position, row)
                self._checksums[position] = checksum(row)
        except OSError as error:
            self.failure = error
            self.close()
            raise
        with self._guard:
            self._written[positions] = True
            if self.complete and self._committing is None and self._lock is not None:
                self._committing = threading.Thread(target=self._commit, name="commit a pack", daemon=True)
                self._committing.start()

    def read(self, positions: Indices) -> tuple[Array, NDArray[np.bool_]]:
        return self._rows.read(positions)

    def close(self) -> None:
        """Waits until a complete pack is committed; removes an incomplete one."""
        if self._committing is not None:
            self._committing.join()
        else:
            self._release()

    def _commit(self) -> None:
        try:
            # All files reach the disk before the rename, so that a pack with its final name is always complete.
            os.fsync(self._rows.descriptor)
            write_atomically(self._partial / LABELS, _npy(self._contents.labels))
            write_atomically(self._partial / CHECKSUMS, _npy(self._checksums))
            write_atomically(self._partial / META, self._meta())
            self._partial.rename(self.folder)
            self._committed = True
            sync(self.folder.parent)
        except OSError as error:
            self.failure = error
        finally:
            self._release()

    def _meta(self) -> bytes:
        contents = self._contents
        facts = {
            "format": FORMAT,
            "key": contents.key,
            "shape": [len(contents.labels), *contents.shape],
            "dtype": contents.dtype,
            "about": dict(contents.about),
            "identity": dict(contents.identity),
            "made": time.time(),
            "made_by": f"experiments {version(DISTRIBUTION)}",
            "checksums": zlib.crc32(_npy(self._checksums)),
        }
        return json.dumps(facts, indent=1, ensure_ascii=False).encode()

    def _release(self) -> None:
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is not None:
            if not self._committed:  # else `remove` may already use this name for the pack that it removes
                shutil.rmtree(self._partial, ignore_errors=True)
            lock.close()

    def __del__(self) -> None:
        self.close()


_packings: WeakValueDictionary[Path, PackWriter] = WeakValueDictionary()
_opening = threading.Lock()


@atexit.register
def _close_all() -> None:
    for writer in list(_packings.values()):
        writer.close()


def check_room(folder: Path, contents: PackSpec) -> None:
    """Creates the folder for packs. Raises OSError if a pack cannot be written there or does not fit."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Comes first, because os.access reports a read-only disk as missing permission.
    if os.statvfs(folder.parent).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(folder.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    free = shutil.disk_usage(folder.parent).free
    if free < contents.num_bytes + _MARGIN:
        raise OSError(errno.ENOSPC, f"{contents.num_bytes / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")


def packing(folder: Path, contents: PackSpec) -> PackWriter | None:
    """Returns the writer of the pack `folder`, creating it if needed; None if another process has written or writes it.

    Successive jobs of one process share a writer, so that rows written by one job are available to the next.
    Raises OSError if the folder cannot be written or has no space.
    """
    with _opening:
        current = _packings.get(folder)
        if current is not None and current.open:
            return current
        check_room(folder, contents)
        with ExitStack() as lock:
            held = lock.enter_context(locked(paths.lock_file(folder), wait=False, remove=True))
            if not held or folder.exists():  # committed by another process before this one took the lock
                return None
            _packings[folder] = writer = PackWriter(folder, contents, lock.pop_all())
            return writer


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
