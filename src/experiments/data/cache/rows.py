"""Arrays of one shape by position, in a file or in memory."""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
_ALIGNMENT = 64  # bytes; TensorFlow copies buffers with a smaller alignment
_KEPT = 4  # buffers; one is enough unless several threads read at the same time


class FileRows:
    """Rows of a file after a header, read and written by system calls.

    The file is not memory-mapped: a full disk or a truncated file raises an error instead of a signal, and the pages in
    the system's cache, which processes share, do not count as memory of a process.
    """

    def __init__(self, path: Path, flags: int, offset: int, shape: Sequence[int], dtype: str) -> None:
        self.descriptor = os.open(path, flags)
        self._offset = offset
        self._shape = tuple(shape)
        self._dtype = np.dtype(dtype)
        self._stride = int(np.prod(self._shape)) * self._dtype.itemsize
        self._memory = BufferPool()

    def __del__(self) -> None:
        # Not closed earlier: a thread that is still writing could hit a new file with the same descriptor.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def write(self, position: int, row: Array) -> None:
        """Raises OSError if the disk is full."""
        content = np.ascontiguousarray(row).reshape(-1).view(np.uint8).data
        start = self._offset + position * self._stride
        while content:
            written = os.pwrite(self.descriptor, content, start)
            content, start = content[written:], start + written

    def read(self, positions: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
        """Returns the rows [n, *shape], and for each of them True if the file contains it completely."""
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
    """Reuses aligned buffers once no array refers to them; allocating new pages costs more than filling them."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=_KEPT)

    def lent(self, num_bytes: int) -> NDArray[np.uint8]:
        """Returns `num_bytes` of arbitrary content, aligned so that TensorFlow uses them without a copy."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _aligned(num_bytes)
        if len(memory) < num_bytes:
            memory = _aligned(num_bytes)
        return np.asarray(_Loan(memory, self._free))[:num_bytes]


class _Loan:
    """Base object of all arrays on a lent buffer; returns the buffer to the pool when the last array is gone."""

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
    """Rows in memory; `complete` when each has been written."""

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
