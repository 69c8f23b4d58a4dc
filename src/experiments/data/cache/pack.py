"""Packs: cache files with one array per example, verified by checksums and shared by all processes."""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data.cache import paths
from experiments.data.cache.paths import CHECKSUMS, DATA, META
from experiments.data.cache.rows import Array, FileRows

FORMAT = 1
Indices = NDArray[np.int64]


class CorruptPackError(ValueError):
    """Raised for a corrupt pack; the message is a short reason."""


@dataclass(frozen=True)
class PackSpec:
    """Description of the content of a pack.

    identity: all values that determine its bits, as JSON types; shape, dtype: of one example's array;
    labels: int64 [num_examples]; about: "source" and "split", which are only shown to users.
    """

    identity: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str
    labels: Indices
    about: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        labels = hashlib.sha256(self.labels.tobytes()).hexdigest()
        facts = [FORMAT, dict(self.identity), self.shape, self.dtype, labels]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def header(self) -> bytes:
        """Header of `data.npy`, so that NumPy can open the file too."""
        stream = io.BytesIO()
        shape = (len(self.labels), *self.shape)
        described = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, described)
        return stream.getvalue()

    @property
    def num_bytes(self) -> int:
        """Size of `data.npy`."""
        return len(self.header) + len(self.labels) * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def rows(self, folder: Path, flags: int) -> FileRows:
        return FileRows(folder / DATA, flags, len(self.header), self.shape, self.dtype)


class Pack:
    """A complete pack, open for reading; each row is verified when it is first read."""

    complete = open = True

    def __init__(self, folder: Path, contents: PackSpec) -> None:
        """Raises FileNotFoundError if there is no pack, CorruptPackError if it does not match `contents`."""
        self.folder = folder
        folder.stat()  # raises FileNotFoundError; a missing file inside the folder means a corrupt pack instead
        try:
            self._checksums = _opened(folder, contents)
            self._rows = contents.rows(folder, os.O_RDONLY)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptPackError(str(error)) from error
        self._checked = np.zeros(len(contents.labels), bool)
        paths.touch(folder / META)

    def discard(self) -> None:
        """Removes the pack's folder, unless another process has already replaced it."""
        try:
            if (self.folder / DATA).stat().st_ino == os.fstat(self._rows.descriptor).st_ino:
                paths.remove(self.folder)
        except FileNotFoundError:
            return  # already removed by another process

    def missing(self) -> Indices:
        return np.empty(0, np.int64)

    def write(self, positions: Indices, rows: Array) -> None:
        """Does nothing: all rows of a pack are already written."""

    def read(self, positions: Indices) -> tuple[Array, NDArray[np.bool_]]:
        """Returns the rows of `positions`, and for each of them True if its checksum is correct."""
        rows, sound = self._rows.read(positions)
        for number in np.flatnonzero(sound & ~self._checked[positions]):
            sound[number] = checksum(rows[number]) == self._checksums[positions[number]]
        self._checked[positions[sound]] = True
        return rows, sound


def checksum(row: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data)


def _opened(folder: Path, contents: PackSpec) -> NDArray[np.uint32]:
    """Returns the checksums of a pack. Raises ValueError naming the part that does not match the others."""
    meta = json.loads((folder / META).read_bytes())
    stored = (folder / CHECKSUMS).read_bytes()
    with (folder / DATA).open("rb") as data:
        header, size = data.read(len(contents.header)), data.seek(0, os.SEEK_END)
    if (meta["format"], meta["key"]) != (FORMAT, contents.key):
        raise ValueError(f"{META} belongs to another pack")
    if zlib.crc32(stored) != meta["checksums"]:
        raise ValueError(f"{CHECKSUMS} has changed")
    if header != contents.header or size != contents.num_bytes:
        raise ValueError(f"{DATA} has {size} bytes and not {contents.num_bytes}, or another header")
    checksums: NDArray[np.uint32] = np.load(io.BytesIO(stored))
    return checksums
