"""A run's events on disk first: appended by the run, delivered from there in order until acknowledged."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from io import BufferedWriter
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from experiments.files import drop_torn_line

Event = dict[str, Any]
"""What happened (`event`), when (`time`, milliseconds since 1970), and its own fields."""
BATCHED = frozenset({"metrics", "params", "tags"})
"""Events that neighbours of the same sort may share one request with; each holds a dict `values`."""
CHUNK_BYTES = 1 << 18
_encode = json.JSONEncoder(separators=(",", ":")).encode
_log = logging.getLogger(__name__)


class Unavailable(Exception):  # noqa: N818 - the state of the store, met in normal work
    """The store is away, hangs or fails: the same events are worth another try later."""


class Rejected(Exception):  # noqa: N818
    """The store understood the events and refuses them: they will never be deliverable."""


class Sink(Protocol):
    def send(self, events: Sequence[Event]) -> None:
        """Delivers the events in order, and bears a repetition: a crash may come before the acknowledgement.

        Raises `Unavailable` or `Rejected`.
        """
        ...


def journal_file(folder: Path) -> Path:
    return folder / "journal.jsonl"


def _offset_file(folder: Path) -> Path:
    return folder / "journal.offset"


def rejected_file(folder: Path) -> Path:
    return folder / "journal.rejected.jsonl"


class Journal:
    """Appends events. Each line is with the operating system when `append` returns, so that a kill loses none."""

    def __init__(self, folder: Path) -> None:
        self._path = journal_file(folder)
        self._file: BufferedWriter | None = None
        self._latest = 0

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        drop_torn_line(self._path)
        _acknowledge(self._path.parent, acknowledged(self._path.parent))
        self.not_before(_last_time(self._path))

    def not_before(self, milliseconds: int) -> None:
        """The time of the events to come, at the least: a store orders by it, and a clock may be put back."""
        self._latest = max(self._latest, milliseconds)

    def append(self, event: str, **fields: Any) -> None:
        """Thread-safe: a buffered writer takes a whole line at a time."""
        if self._file is None:
            raise RuntimeError("the journal is not open")
        self.not_before(time.time_ns() // 1_000_000)
        line = _encode({"event": event, "time": self._latest, **fields}) + "\n"
        self._file.write(line.encode("ascii"))
        self._file.flush()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _last_time(path: Path) -> int:
    """Of its last event; 0 where there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - CHUNK_BYTES))
        lines = file.read().splitlines()
    return int(_event(lines[-1]).get("time", 0)) if lines else 0


def first_event(folder: Path) -> Event | None:
    """The `start` event of the run that owns the folder: its `run_id` and masked `tracking_uri`."""
    path = journal_file(folder)
    if not path.exists():
        return None
    with path.open("rb") as file:
        line = file.readline()
    found: Event | None = json.loads(line) if line.endswith(b"\n") else None
    return found


def events(folder: Path, kind: str) -> Iterator[Event]:
    """All complete events of one kind, such as "tags"; other lines are not parsed."""
    with journal_file(folder).open("rb") as file:
        for line in file:
            if line.startswith(b'{"event":"%s"' % kind.encode()) and line.endswith(b"\n"):
                yield _event(line)


def last_steps(folder: Path) -> dict[str, int]:
    """Metric -> the last step that the journal holds; a run that goes on repeats some steps, with the same values."""
    steps: dict[str, int] = {}
    with journal_file(folder).open("rb") as file:
        for event in map(_event, file):
            if event["event"] == "metrics":
                steps |= {name: max(event["step"], steps.get(name, event["step"])) for name in event["values"]}
    return steps


def deliver(folder: Path, sink: Sink) -> None:
    """Sends all that waits in the folder's journal; raises `Unavailable` when the store does not take it now."""
    while deliver_chunk(folder, sink):
        pass


def deliver_chunk(folder: Path, sink: Sink) -> bool:
    """Sends the next few thousand events; False when none waited."""
    lines = _waiting(folder)
    end = acknowledged(folder)
    for group in _requests(lines):
        _send(folder, sink, [event for _, event in group])
        end += sum(size for size, _ in group)
        _acknowledge(folder, end)
    return bool(lines)


def acknowledged(folder: Path) -> int:
    """Bytes of the journal that the store has taken (or refused for good)."""
    path = _offset_file(folder)
    return int(path.read_text() or 0) if path.exists() else 0


def undelivered(folder: Path) -> int:
    """Number of events that wait."""
    with journal_file(folder).open("rb") as file:
        file.seek(acknowledged(folder))
        return sum(1 for line in file if line.endswith(b"\n"))


def next_event(folder: Path) -> str | None:
    """The sort of the first event that waits; None when none does."""
    with journal_file(folder).open("rb") as file:
        file.seek(acknowledged(folder))
        line = file.readline()
    return str(_event(line)["event"]) if line.endswith(b"\n") else None


def waiting_uploads(folder: Path) -> set[Path]:
    """Files and folders that are still to be uploaded."""
    if not journal_file(folder).exists():
        return set()
    with journal_file(folder).open("rb") as file:
        file.seek(acknowledged(folder))
        events = [_event(line) for line in file]
    return {Path(event["path"]) for event in events if event["event"] == "artifacts"}


def _acknowledge(folder: Path, end: int) -> None:
    """In place, for which a full disk has room too; so few bytes are written as a whole or not at all."""
    path = _offset_file(folder)
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(b"%020d" % end)


def _waiting(folder: Path) -> list[tuple[int, Event]]:
    """(bytes, event) of the next complete lines, about CHUNK_BYTES of them."""
    with journal_file(folder).open("rb") as file:
        file.seek(acknowledged(folder))
        content = file.read(CHUNK_BYTES) + file.readline()
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    return [(len(line), _event(line)) for line in lines]


def _event(line: bytes) -> Event:
    try:
        event: Event = json.loads(line)
    except ValueError:
        return {"event": "unreadable", "line": line.decode("utf-8", "replace")}
    return event


def _requests(lines: Sequence[tuple[int, Event]]) -> Iterator[list[tuple[int, Event]]]:
    for batched, group in groupby(lines, key=lambda line: line[1]["event"] in BATCHED):
        if batched:
            yield list(group)
        else:
            yield from ([line] for line in group)


def _send(folder: Path, sink: Sink, events: Sequence[Event]) -> None:
    """Halves what is refused, so that one bad value takes nothing good with it."""
    try:
        sink.send(events)
    except Rejected as error:
        parts = _halves(events)
        if not parts:
            _keep_rejected(folder, events[0], str(error))
        for part in parts:
            _send(folder, sink, part)


def _halves(events: Sequence[Event]) -> list[Sequence[Event]]:
    if len(events) > 1:
        middle = len(events) // 2
        return [events[:middle], events[middle:]]
    values = list(events[0].get("values", {}).items())
    if len(values) < 2:
        return []
    middle = len(values) // 2
    return [[events[0] | {"values": dict(half)}] for half in (values[:middle], values[middle:])]


def _keep_rejected(folder: Path, event: Event, reason: str) -> None:
    path = rejected_file(folder)
    _log.error("The tracking store refused an event (%s), kept in %s: %s", event["event"], path, reason)
    with path.open("a", encoding="utf-8") as file:
        file.write(_encode(event | {"reason": reason}) + "\n")
