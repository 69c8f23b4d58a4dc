"""Journal of a run: the run appends events to a file; they are delivered from it in order until acknowledged."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BufferedWriter
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from experiments.errors import Rejected, TrackingError, reading
from experiments.files import drop_torn_line, sync

Event = dict[str, Any]
"""Kind of event (`event`), its time in milliseconds since 1970 (`time`), and the fields of this kind."""
BATCHED = frozenset({"metrics", "params", "tags"})
"""Kinds of events that are combined into one request if they follow each other; each has a dict `values`."""
CHUNK_BYTES = 1 << 18
_encode = json.JSONEncoder(separators=(",", ":")).encode
_log = logging.getLogger(__name__)


class Unavailable(TrackingError):  # noqa: N818 - a state of the store that occurs in normal operation
    """The store does not accept the events now. Sending them later may succeed."""


class Outage(Unavailable):
    """The store is unreachable, hangs or fails, which may pass while a process waits."""


class Forbidden(Unavailable):
    """The account lacks a permission, such as that to delete, which others in the team have."""


class Sink(Protocol):
    def send(self, events: Sequence[Event]) -> None:
        """Sends the events in order. Raises `Unavailable` or `Rejected`.

        Must accept events twice: after a crash before their acknowledgement, they are sent again.
        """
        ...


def journal_file(folder: Path) -> Path:
    return folder / "journal.jsonl"


def _offset_file(folder: Path) -> Path:
    return folder / "journal.offset"


def rejected_file(folder: Path) -> Path:
    return folder / "journal.rejected.jsonl"


class Journal:
    """Append-only log of events. `append` passes each line to the operating system, so a killed process loses none."""

    def __init__(self, folder: Path) -> None:
        self._path = journal_file(folder)
        self._file: BufferedWriter | None = None
        self._latest = 0

    def open(self) -> None:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        drop_torn_line(self._path)
        # Creates the offset file at its final size, so that a full disk later has room to overwrite it.
        _acknowledge(folder, acknowledged(folder))
        # On the disk, the offset may count lines that a power failure has removed. New lines will take their place.
        for path in (self._path, _offset_file(folder), folder):
            sync(path)
        self.not_before(_last_time(self._path))

    def not_before(self, milliseconds: int) -> None:
        """Sets the earliest time of later events: stores order metrics by time, and the clock may be set back."""
        self._latest = max(self._latest, milliseconds)

    def append(self, event: str, **fields: Any) -> None:
        """Appends an event. Thread-safe, because `BufferedWriter` locks each write."""
        if self._file is None:
            raise RuntimeError("the journal is not open")
        self.not_before(time.time_ns() // 1_000_000)
        line = _encode({"event": event, "time": self._latest, **fields}) + "\n"
        self._file.write(line.encode("ascii"))
        self._file.flush()

    def sync(self) -> None:
        """Writes the events so far to the disk, so that a power failure loses none of them."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with closing(file):
                os.fsync(file.fileno())


def _last_time(path: Path) -> int:
    """Time of the last event in the file; 0 if there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - CHUNK_BYTES))
        lines = file.read().splitlines()
    found = _event(lines[-1]).get("time") if lines else 0
    return found if isinstance(found, int) else 0


def first_event(folder: Path) -> Event | None:
    """Returns the `start` event, which has the folder's `run_id` and masked `tracking_uri`; None if there is none."""
    path = journal_file(folder)
    if not os.path.isfile(path):  # noqa: PTH113 - unlike pathlib, it accepts a path that is too long
        return None
    with path.open("rb") as file:
        found = _event(file.readline(CHUNK_BYTES))
    return {"tracking_uri": None} | found if isinstance(found.get("run_id"), str) else None


def events(folder: Path, kind: str) -> Iterator[Event]:
    """Yields the complete events of a kind, such as "tags". Other lines are not parsed."""
    with journal_file(folder).open("rb") as file:
        for line in file:
            if line.startswith(b'{"event":"%s"' % kind.encode()) and line.endswith(b"\n"):
                yield _event(line)


def last_steps(folder: Path) -> dict[str, int]:
    """Returns the last step of each metric in the journal. A resumed run repeats some steps, with the same values."""
    steps: dict[str, int] = {}
    with reading(f"the journal in '{folder}'"), journal_file(folder).open("rb") as file:
        for event in map(_event, file):
            if event["event"] == "metrics":
                steps |= {name: max(event["step"], steps.get(name, event["step"])) for name in event["values"]}
    return steps


def deliver(folder: Path, sink: Sink) -> None:
    """Sends all undelivered events of the journal in `folder`. Raises `Unavailable` if the store is unavailable."""
    while deliver_chunk(folder, sink):
        pass


def deliver_chunk(folder: Path, sink: Sink) -> bool:
    """Sends the next few thousand undelivered events; returns False if there were none."""
    lines = [(len(line), _event(line)) for line in _waiting(folder, CHUNK_BYTES)]
    end = acknowledged(folder)
    for group in _requests(lines):
        _send(folder, sink, [event for _, event in group])
        end += sum(size for size, _ in group)
        _acknowledge(folder, end)
    return bool(lines)


def acknowledged(folder: Path) -> int:
    """Number of bytes of the journal whose events the store has accepted or rejected."""
    path = _offset_file(folder)
    text = path.read_bytes()[:20] if path.exists() else b""
    end = int(text) if text.isdigit() else 0
    with journal_file(folder).open("rb") as file:
        file.seek(max(0, min(end, file.seek(0, os.SEEK_END) + 1) - 1))
        return end if file.read(1) == b"\n" else 0  # sending again changes nothing in the store


def undelivered(folder: Path) -> int:
    """Number of events that are not delivered yet."""
    return sum(1 for _ in _waiting(folder))


def next_event(folder: Path) -> str | None:
    """Kind of the first undelivered event; None if all are delivered."""
    return next((str(_event(line)["event"]) for line in _waiting(folder)), None)


def waiting_uploads(folder: Path) -> set[Path]:
    """Files and folders that are not uploaded yet."""
    if not journal_file(folder).exists():
        return set()
    with reading(f"the journal in '{folder}'"):
        return {Path(event["path"]) for event in map(_event, _waiting(folder)) if event["event"] == "artifacts"}


def _acknowledge(folder: Path, end: int) -> None:
    """Saves the acknowledged position in place, which needs no disk space. A write of 20 bytes is never partial."""
    path = _offset_file(folder)
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(b"%020d" % end)


def _waiting(folder: Path, most: int | None = None) -> Iterator[bytes]:
    """Yields the undelivered complete lines, about `most` bytes of them."""
    with journal_file(folder).open("rb") as file:
        file.seek(acknowledged(folder))
        lines = file if most is None else file.readlines(most)
        yield from (line for line in lines if line.endswith(b"\n"))


def _event(line: bytes) -> Event:
    try:
        event: Event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except (ValueError, RecursionError):
        pass
    return {"event": "unreadable", "line": line.decode("utf-8", "replace")}


def _requests(lines: Sequence[tuple[int, Event]]) -> Iterator[list[tuple[int, Event]]]:
    for batched, group in groupby(lines, key=lambda line: line[1]["event"] in BATCHED):
        if batched:
            yield list(group)
        else:
            yield from ([line] for line in group)


def _send(folder: Path, sink: Sink, events: Sequence[Event]) -> None:
    """Sends the events. Rejected ones are halved repeatedly, so that only the invalid values are set aside."""
    try:
        sink.send(events)
    except Rejected as error:
        parts = _halves(events)
        if not parts:
            event, path = events[0], rejected_file(folder)
            _log.error("The tracking store refused an event (%s), kept in %s: %s", event["event"], path, error)
            with path.open("a", encoding="utf-8") as file:
                file.write(_encode(event | {"reason": str(error)}) + "\n")
        for part in parts:
            _send(folder, sink, part)


def _halves(events: Sequence[Event]) -> list[Sequence[Event]]:
    if len(events) > 1:
        middle = len(events) // 2
        return [events[:middle], events[middle:]]
    found = events[0].get("values")
    values = list(found.items()) if isinstance(found, dict) else []
    if len(values) < 2:
        return []
    middle = len(values) // 2
    return [[events[0] | {"values": dict(half)}] for half in (values[:middle], values[middle:])]
