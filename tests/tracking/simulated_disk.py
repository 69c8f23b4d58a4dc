"""A disk in memory behind Python's file functions. It forgets what was not synced when its power is cut."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any
from unittest import mock

ROOT = "/simulated"
SECTOR = 64
"""Bytes that reach the disk together. Real sectors have at least 512 bytes; small ones tear more lines."""


class Killed(BaseException):
    """The process ends at once. The operating system keeps what was written."""


class PowerCut(BaseException):
    """The machine stops. Only synced bytes and names are certainly on the disk."""


class Node:
    """A file or a folder (whose content is a dict of nodes by name), with all versions since its last sync."""

    def __init__(self, content: Any) -> None:
        self.versions = [content]

    @property
    def content(self) -> Any:
        return self.versions[-1]

    @property
    def is_folder(self) -> bool:
        return isinstance(self.content, dict)


class Disk:
    """File system below ROOT. `ordered` disks lose the last writes to a file, other disks lose any of its sectors.

    A function call of the process raises `death` after `die_in` further calls; a write is then done in part.
    """

    def __init__(self, random: Random, *, ordered: bool) -> None:
        self._random, self._ordered = random, ordered
        self._root = Node({})
        self._handles: dict[int, Node] = {}
        self._next_handle = 1_000_000
        self.process = 0
        self.death: type[BaseException] = Killed
        self.die_in: float = float("inf")

    def restart(self) -> None:
        """Starts the next process: the handles of the earlier one are invalid. After a power cut, also forgets."""
        if self.dead and self.death is PowerCut:
            self._root = self._survivor(self._root)
        self._handles, self.process, self.die_in = {}, self.process + 1, float("inf")

    @property
    def dead(self) -> bool:
        return self.die_in < 0

    def cut_power(self) -> None:
        self.death, self.die_in = PowerCut, -1
        self.restart()

    def _survivor(self, node: Node) -> Node:
        numbers = range(len(node.versions))
        # Often, nothing or everything has reached the disk.
        number = self._random.choice((0, numbers[-1], self._random.choice(numbers)))
        if node.is_folder:
            return Node({name: self._survivor(each) for name, each in node.versions[number].items()})
        if self._ordered:
            later = node.versions[min(number + 1, len(node.versions) - 1)]
            torn = SECTOR * self._random.randrange(len(later) // SECTOR + 2)
            return Node(later[:torn] + node.versions[number][torn:])
        size = len(node.versions[number])
        sectors = (self._random.choice(node.versions)[at : at + SECTOR] for at in range(0, size, SECTOR))
        return Node(b"".join(sector.ljust(SECTOR, b"\0") for sector in sectors)[:size])

    def step(self) -> None:
        """Counts a call. Raises `death` when its time has come, and at each call of a dead process."""
        self.die_in -= 1
        if self.dead:
            raise self.death

    def find(self, path: Any) -> Node:
        node = self._root
        for name in os.fspath(path)[len(ROOT) :].split("/")[1:]:
            if not node.is_folder or name not in node.content:
                raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
            node = node.content[name]
        return node

    def _link(self, path: Any, node: Node | None) -> None:
        folder, _, name = os.fspath(path).rpartition("/")
        parent = self.find(folder)
        names = {key: each for key, each in parent.content.items() if key != name}
        parent.versions.append(names if node is None else {**names, name: node})

    def write(self, node: Node, at: int, data: bytes) -> None:
        self.die_in -= 1
        if self.dead:
            # No sector is written in part, so that the few bytes of an offset are old or new.
            data = data[: self._random.choice((0, *range(-at % SECTOR, len(data), SECTOR), len(data)))]
        old = node.content.ljust(at, b"\0")
        node.versions.append(old[:at] + data + old[at + len(data) :])
        if self.dead:
            raise self.death

    def file(self, path: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any) -> Any:
        """Opens a file as `open` does."""
        self.step()
        try:
            node = self.find(path)
        except FileNotFoundError:
            if mode[0] not in "aw":
                raise
            node = Node(b"")
            self._link(path, node)
        if mode[0] == "w" and node.content:
            node.versions.append(b"")
        raw = Handle(self, node, append=mode[0] == "a")
        writes = mode[0] in "aw" or "+" in mode
        if buffering == 0:
            return raw
        buffered = io.BufferedWriter(raw) if writes else io.BufferedReader(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding)

    def open(self, path: Any, flags: int = 0, *_: Any, **__: Any) -> int:
        """Opens a file or a folder as `os.open` does."""
        if flags & os.O_CREAT:
            return self.handle(self.file(path, "ab", 0).node)
        self.step()
        return self.handle(self.find(path))

    def handle(self, node: Node) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = node
        return self._next_handle

    def fsync(self, file: Any) -> None:
        self.step()
        node = self._handles[file if isinstance(file, int) else file.fileno()]
        del node.versions[:-1]

    def stat(self, path: Any, **_: Any) -> os.stat_result:
        node = self.find(path)
        kind = stat.S_IFDIR if node.is_folder else stat.S_IFREG
        return os.stat_result((kind, id(node), 0, 1, 0, 0, len(node.content), 0, 0, 0))

    def mkdir(self, path: Any, *_: Any, **__: Any) -> None:
        self.step()
        try:
            self.find(path)
        except FileNotFoundError:
            return self._link(path, Node({}))
        raise FileExistsError(17, "File exists", os.fspath(path))

    def truncate(self, path: Any, length: int) -> None:
        self.step()
        node = self.find(path)
        node.versions.append(node.content[:length].ljust(length, b"\0"))

    def replace(self, path: Any, target: Any, **_: Any) -> None:
        """Renames within a folder, which is one change of its names."""
        self.step()
        folder, _slash, name = os.fspath(path).rpartition("/")
        parent = self.find(folder)
        names = dict(parent.content)
        parent.versions.append(names | {os.fspath(target).rpartition("/")[2]: names.pop(name)})

    def unlink(self, path: Any, **_: Any) -> None:
        self.step()
        self.find(path)
        self._link(path, None)

    def close(self, handle: int) -> None:
        del self._handles[handle]

    def utime(self, path: Any, *_: Any, **__: Any) -> None:
        self.find(path)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Directs the file functions of Python to this disk for all paths below ROOT."""
        names = ("open", "stat", "mkdir", "truncate", "replace", "unlink", "utime", "fsync", "close")
        patches = [mock.patch.object(io, "open", self._directed(self.file, io.open))]
        patches += [
            mock.patch.object(os, name, self._directed(getattr(self, name), getattr(os, name))) for name in names
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def _directed(self, mine: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(target, int):
                here = target in self._handles
            elif isinstance(target, io.IOBase):
                here = target.fileno() in self._handles
            else:
                here = str(target).startswith(ROOT)
            return (mine if here else real)(target, *arguments, **options)

        return call


class Handle(io.RawIOBase):
    """An open file. After the end of its process it writes nothing, although Python closes it then."""

    def __init__(self, disk: Disk, node: Node, *, append: bool) -> None:
        self.node = node
        self._disk, self._append, self._at, self._process = disk, append, 0, disk.process
        self._number = disk.handle(node)

    def fileno(self) -> int:
        return self._number

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self.node.content))[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.node.content[self._at : self._at + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        if self._process == self._disk.process and not self._disk.dead:
            self._disk.write(self.node, len(self.node.content) if self._append else self._at, bytes(data))
        self._at += len(data)
        return len(data)
