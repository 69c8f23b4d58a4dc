"""The queue's file where no database is named: a line an event, appended by every process of the sweep."""

import json
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from experiments.errors import ExperimentError

STUDY = "study.journal"


def storage(address: str | None, folder: Path) -> BaseStorage:
    """address: of a database, or None for the file in the sweep's folder."""
    if address is None:
        return JournalStorage(JournalFileBackend(str(folder / STUDY)))
    return RDBStorage(address)


def damaged_line(folder: Path) -> int | None:
    """The first one, from 1, that is no event; not the last one where it was cut short, as readers leave that out."""
    path = folder / STUDY
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return next((number for number, line in enumerate(whole, 1) if not _is_event(line)), None)


def require_whole(folder: Path) -> None:
    """Raises ExperimentError where the file is damaged."""
    line = damaged_line(folder)
    if line is not None:
        raise ExperimentError(
            f"the queue {folder / STUDY} is damaged: expected an event in line {line}, received something else. "
            f"Make it anew from the runs in the store: python -m experiments.doctor fix=true folders=['{folder}']"
        )


def drop_torn_line(folder: Path) -> None:
    """What a full disk or a lost machine has cut short, as the next event would be joined to it.

    To be called while no other process writes.
    """
    path = folder / STUDY
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
