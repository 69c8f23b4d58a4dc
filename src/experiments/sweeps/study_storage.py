"""Storage of a sweep: an Optuna study with the plan, the jobs and the processes, in a file or a database."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from experiments.errors import ExperimentError, reading
from experiments.files import drop_torn_line, lock
from experiments.records.sweep_plan import STUDY
from experiments.repair.base import Finding
from experiments.tracking.journal import Outage
from experiments.tracking.patience import SWEEP_SECONDS, least_patience, patiently
from experiments.tracking.redaction import mask

REMEDY = (
    "start the same command again without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: "
    "a grid takes the results of finished jobs from the store, random and tpe draw again"
)
"""Remedy for a sweep that cannot be resumed."""

CONNECT_SECONDS = 10
CREATED, TAKEN = "created as", "taken as"
"""System attributes of a trial, with tokens by which the process whose call was not answered finds its own change."""
_T = TypeVar("_T")

optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(address: str | None, folder: Path) -> BaseStorage:
    """Storage of the study: the database at `address`, or the file in the sweep's folder if it is None.

    The first contact waits for `least_patience`, all others for SWEEP_SECONDS. Raises TrackingError if it does not
    answer, is corrupt or is missing.
    """
    if address is not None:
        wanted = (
            "the URL of a database that answers, with its driver installed. Start it, or change sweep.storage; "
            "pip install 'keras-experiments[postgres]' installs the driver of PostgreSQL"
        )
        with reading(f"sweep.storage={mask(address)}", wanted):
            limits = {"connect_timeout": CONNECT_SECONDS} if address.startswith("postgresql") else {}
            # A database that was restarted has closed the connections of the pool.
            options = {"pool_pre_ping": True, "connect_args": limits}
            database = partial(_Database, address, engine_kwargs=options)
            seconds = least_patience.get()
            return _PatientStorage(_answer(database, seconds) if seconds else database())
    path = folder / STUDY
    with reading(f"the queue {path}", f"a complete file, on a disk that all machines share. If it is lost, {REMEDY}"):
        if not path.is_file():  # A pipe would block.
            raise ValueError("the file is missing")
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_SystemLock(path)))


def _answer(call: Callable[[], _T], seconds: float = SWEEP_SECONDS) -> _T:
    return patiently(call, seconds, _judged, "database of the sweep")


def _judged(error: Exception) -> Exception:
    """Returns Outage for a lost or refused connection, which Optuna wraps; any other error itself."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InterfaceError | OperationalError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return error
    # A lost or refused connection has no SQLSTATE, or one of these classes; an error in SQLite's file has a name.
    state, name = getattr(cause.orig, "sqlstate", None), getattr(cause.orig, "sqlite_errorname", None)
    is_outage = (state or "08")[:2] in ("08", "53", "57") and name != "SQLITE_ERROR"
    return Outage(mask(" ".join(str(cause.orig).split()))) if is_outage else error


class _Database(RDBStorage):
    def _get_prepared_new_trial(self, study_id: int, template_trial: Any, session: Any) -> Any:
        """Creates a trial, or returns that of an earlier call with this template whose answer was lost."""
        from optuna.storages._rdb.models import TrialModel
        from optuna.storages._rdb.models import TrialSystemAttributeModel as Attribute

        if template_trial is not None and CREATED in template_trial.system_attrs:
            token = json.dumps(template_trial.system_attrs[CREATED])
            trials = session.query(TrialModel).filter(TrialModel.study_id == study_id).join(Attribute)
            created = trials.filter(Attribute.key == CREATED, Attribute.value_json == token).first()
            if created is not None:
                return created
        elif template_trial is not None:
            template_trial.system_attrs[CREATED] = uuid4().hex
        return super()._get_prepared_new_trial(study_id, template_trial, session)


class _PatientStorage(_CachedStorage):
    """Database whose calls wait while it is unavailable, as those of StoreClient do. Optuna's lock is free then."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "set_trial_state_values" or not callable(found):
            return found
        return lambda *arguments, **options: _answer(partial(found, *arguments, **options))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Changes the state once, also if the answer to the first call is lost. Returns False if another process did.

        A process that takes a trial stores a token in the same transaction. Only one token for each trial is possible.
        """
        from optuna.storages._rdb.models import TrialSystemAttributeModel

        repeated, token = list[bool](), uuid4().hex

        def change() -> bool:
            if repeated:
                found = self._backend.get_trial(trial_id)
                is_own = found.values == values if state.is_finished() else found.system_attrs.get(TAKEN) == token
                if found.state == state and is_own:
                    return True
            repeated.append(True)
            if state == TrialState.RUNNING:
                taken = TrialSystemAttributeModel(trial_id=trial_id, key=TAKEN, value_json=json.dumps(token))
                self._backend.scoped_session().add(taken)  # the session of this thread, which the next call commits
            return _CachedStorage.set_trial_state_values(self, trial_id, state, values)

        return _answer(change)


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
