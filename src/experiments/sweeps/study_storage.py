"""Storage of a sweep: an Optuna study with the plan, the jobs and the processes, in a file or a database."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from experiments.errors import ExperimentError, reading
from experiments.files import drop_torn_line, lock
from experiments.records.sweep_plan import STUDY
from experiments.repair.base import Finding
from experiments.tracking.redaction import mask

REMEDY = (
    "start the same command again without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: "
    "a grid takes the results of finished jobs from the store, random and tpe draw again"
)
"""Remedy for a sweep that cannot be resumed."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(address: str | None, folder: Path) -> BaseStorage:
    """Storage of the study: the database at `address`, or the file in the sweep's folder if it is None.

    Raises TrackingError if it does not answer, is corrupt or is missing.
    """
    if address is not None:
        wanted = "the URL of a database that answers, with its driver installed. Start it, or change sweep.storage"
        with reading(f"sweep.storage={mask(address)}", wanted):
            # A database that was restarted has closed the connections of the pool.
            return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
    path = folder / STUDY
    with reading(f"the queue {path}", f"a complete file, on a disk that all machines share. If it is lost, {REMEDY}"):
        if not path.is_file():  # A pipe would block.
            raise ValueError("the file is missing")
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_SystemLock(path)))


class _SystemLock(JournalFileOpenLock):
    """Lock of the file itself, which the system releases if its process is killed. Optuna's locks block for 30 s then.

    A line that a killed process has not completed is removed, so that the next line starts on its own.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR)
        lock(self._descriptor)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            drop_torn_line(self._path)
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def damaged_queues(roots: Sequence[str]) -> Iterator[Finding]:
    """Yields the corrupt queues of sweeps at and below `roots`."""
    for path in [path for root in roots for path in sorted(Path(root).expanduser().absolute().glob(f"**/{STUDY}"))]:
        try:
            storage(None, path.parent)
        except ExperimentError:
            yield Finding("sweep", str(path.parent), f"{STUDY} is corrupt", REMEDY)
