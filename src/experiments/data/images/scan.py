"""Reads image files once and records the hash, header and state of each."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from experiments.cli.progress_bar import progress
from experiments.cli.safe_text import visible
from experiments.data.images.headers import Header, UnreadableImageError, quiet_exif, read_header

_CHUNK = 64

# Seconds per file above which threads are used. On a fast disk, two threads scan half as many files per second as one,
# because they wait for the interpreter lock; threads help only with slow disks and networks.
_SLOW = 2e-3
_READERS = 16


class ImageFile(NamedTuple):
    """An image of a class folder; `path` is relative to the data set's folder, with forward slashes."""

    path: str
    label: int


class FileState(NamedTuple):
    """Attributes of a file that change with its content; times are in nanoseconds since 1970.

    Any program can set `modified_ns`, but only the operating system sets `changed_ns`.
    """

    num_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Record(NamedTuple):
    """A readable image, with its hash, header and file state at the time of the scan."""

    path: str
    label: int
    sha256: str
    header: Header
    state: FileState


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not a complete image."""

    path: str
    label: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


def scan(root: Path, files: Sequence[ImageFile]) -> list[Record | Damage]:
    """Reads each of `files` below `root` once; returns the results in the same order."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    found: list[Record | Damage] = []
    with quiet_exif(), progress("Scanning images", len(files)) as advance:
        for results in _examined(str(root), chunks):
            found += results
            advance(len(results))
    return found


def _examined(root: str, chunks: Sequence[Sequence[ImageFile]]) -> Iterator[list[Record | Damage]]:
    """Yields the results of each chunk in order; uses threads after the first slow chunk."""
    done = 0
    for chunk in chunks:
        begun = time.perf_counter()
        yield [examine(root, file) for file in chunk]
        done += 1
        if time.perf_counter() - begun > _SLOW * len(chunk):
            break
    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(lambda chunk: [examine(root, file) for file in chunk], chunks[done:])


def examine(root: str, file: ImageFile) -> Record | Damage:
    try:
        file.path.encode()  # such a name can be opened, but neither cached nor logged nor passed to TensorFlow
        content, state = _read(f"{root}/{file.path}")
        return Record(file.path, file.label, hashlib.sha256(content).hexdigest(), read_header(content), state)
    except OSError as error:
        return Damage(file.path, file.label, error.strerror or type(error).__name__)
    except UnicodeEncodeError:
        return Damage(visible(file.path), file.label, "a name that is not UTF-8")
    except UnreadableImageError as error:
        return Damage(file.path, file.label, str(error))


def _read(path: str) -> tuple[bytes, FileState]:
    descriptor = os.open(path, os.O_RDONLY)  # takes a third of the time of Path.read_bytes
    try:
        before = FileState.of(os.fstat(descriptor))
        content = os.read(descriptor, before.num_bytes + 1)  # one byte more shows that the file has grown
        after = FileState.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)
    if before != after or len(content) != after.num_bytes:
        raise UnreadableImageError("changed while it was read")
    return content, after
