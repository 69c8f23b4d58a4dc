"""Arrays of one shape by position: in a file, or in memory."""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
_ALIGNMENT = 64  # bytes, as TensorFlow asks for
_KEPT = 4  # batches: one would do, but for threads that read at the same time


class FileRows:
    """Rows of a file behind a header, read and written by system calls.

    Nothing is mapped: a full disk and a file that shrinks are errors here and would be signals there, and the pages
    that processes share in the system's cache count as nobody's memory.
    """

    def __init__(self, path: Path, flags: int, offset: int, shape: Sequence[int], dtype: str) -> None:
        self.descriptor = os.open(path, flags)
        self._offset = offset
        self._shape = tuple(shape)
        self._dtype = np.dtype(dtype)
        self._stride = int(np.prod(self._shape)) * self._dtype.itemsize
        self._memory = BufferPool()

    def __del__(self) -> None:
        # Not sooner: a thread that still writes must not meet another file under the same number.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def write(self, position: int, row: Array) -> None:
        """Raises OSError when the disk is full."""
        content = np.ascontiguousarray(row).reshape(-1).view(np.uint8).data
        start = self._offset + position * self._stride
        while content:
            written = os.pwrite(self.descriptor, content, start)
            content, start = content[written:], start + written

    def read(self, positions: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
        """The rows [n, *shape], and which of them the file holds in full."""
        raw = self._memory.lent(len(positions) * self._stride).reshape(len(positions), -1)
        rows = raw.view(self._dtype).reshape(len(positions), *self._shape)
        full = np.ones(len(positions), bool)
        for number, position in enumerate(positions.tolist()):
            full[number] = self._read_row(raw[number], self._offset + position * self._stride)
        return rows, full

    def _read_row(self, row: NDArray[np.uint8], start: int) -> bool:
        try:
            done = os.preadv(self.descriptor, [row.data], start)
            while 0 < done < len(row):
                more = os.preadv(self.descriptor, [row[done:].data], start + done)
                if more == 0:
                    break
                done += more
        except OSError:
            return False
        return done == len(row)


class BufferPool:
    """Lends memory that is used again when nothing refers to it any more: new pages cost more than what fills them."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=_KEPT)

    def lent(self, num_bytes: int) -> NDArray[np.uint8]:
        """So many bytes of any content, from an address on that TensorFlow takes over without a copy."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _aligned(num_bytes)
        if len(memory) < num_bytes:
            memory = _aligned(num_bytes)
        return np.asarray(_Loan(memory, self._free))[:num_bytes]


class _Loan:
    """What every array on lent memory refers to in the end, so that its own end is theirs."""

    def __init__(self, memory: NDArray[np.uint8], free: deque[NDArray[np.uint8]]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)


def _aligned(num_bytes: int) -> NDArray[np.uint8]:
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + num_bytes]


class MemoryRows:
    """Rows kept in memory; `complete` when each has been written."""

    def __init__(self, count: int, shape: Sequence[int], dtype: str) -> None:
        self._rows = np.empty((count, *shape), dtype)
        self._written = np.zeros(count, bool)

    @property
    def complete(self) -> bool:
        return bool(self._written.all())

    def missing(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self._written)

    def write(self, positions: NDArray[np.int64], rows: Array) -> None:
        self._rows[positions] = rows
        self._written[positions] = True

    def read(self, positions: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
        return np.take(self._rows, positions, axis=0), np.ones(len(positions), bool)
