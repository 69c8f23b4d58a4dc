"""One pass over image files: what each is, told by its content."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from experiments.cli.progress_bar import progress
from experiments.data.images.headers import Header, UnreadableImageError, quiet_exif, read_header

_CHUNK = 64

# Python's threads get in each other's way here, twice as slow on two cores as alone; so they come in only where a file
# takes so long that it must be the disk or the network.
_SLOW = 2e-3
_READERS = 16


class ImageFile(NamedTuple):
    """One image of a class folder; `path` is relative to the data set's folder, with forward slashes."""

    path: str
    label: int


class FileState(NamedTuple):
    """What changes with the content of a file; times in nanoseconds since 1970.

    modified_ns can be set by anybody, changed_ns by the operating system only.
    """

    num_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Record(NamedTuple):
    """A whole image, as it was when it was scanned."""

    path: str
    label: int
    sha256: str
    header: Header
    state: FileState


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is no whole image."""

    path: str
    label: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


def scan(root: Path, files: Sequence[ImageFile]) -> list[Record | Damage]:
    """Reads every file below `root` once; the result has their order."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    found: list[Record | Damage] = []
    with quiet_exif(), progress("Scanning images", len(files)) as advance:
        for results in _examined(str(root), chunks):
            found += results
            advance(len(results))
    return found


def _examined(root: str, chunks: Sequence[Sequence[ImageFile]]) -> Iterator[list[Record | Damage]]:
    """The results of each chunk in order, by many threads from the first chunk on that is slow."""
    done = 0
    for chunk in chunks:
        begun = time.perf_counter()
        yield [_examine(root, file) for file in chunk]
        done += 1
        if time.perf_counter() - begun > _SLOW * len(chunk):
            break
    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(lambda chunk: [_examine(root, file) for file in chunk], chunks[done:])


def _examine(root: str, file: ImageFile) -> Record | Damage:
    try:
        content, state = _read(f"{root}/{file.path}")
        return Record(file.path, file.label, hashlib.sha256(content).hexdigest(), read_header(content), state)
    except OSError as error:
        return Damage(file.path, file.label, error.strerror or type(error).__name__)
    except UnreadableImageError as error:
        return Damage(file.path, file.label, str(error))


def _read(path: str) -> tuple[bytes, FileState]:
    descriptor = os.open(path, os.O_RDONLY)  # a third of the time of Path.read_bytes
    try:
        before = FileState.of(os.fstat(descriptor))
        content = os.read(descriptor, before.num_bytes + 1)
        after = FileState.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)
    if before != after or len(content) != after.num_bytes:
        raise UnreadableImageError("changed while it was read")
    return content, after
