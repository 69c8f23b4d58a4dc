"""The queue of a sweep: an optuna study that processes and machines share."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.errors import ExperimentError
from experiments.sweeps.plan import Plan
from experiments.sweeps.samplers import distributions, draw, pruner, sampler, try_out
from experiments.sweeps.search_space import Cell

LOCK = "study.lock"

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Job:
    """One trial of the study. number: of the job, the same in each of its attempts; repeat: of its cell."""

    trial: Trial
    number: int
    cell: Cell
    repeat: int
    attempt: int


class Begun(NamedTuple):
    """A job that has to go on."""

    cell: Cell
    repeat: int


def check_sampler(plan: Plan) -> None:
    """Raises ConfigError where the sampler cannot do its work, or the pruner is none."""
    pruner(plan.settings.pruner)
    try_out(plan.settings.sampler, distributions(plan), [DIRECTIONS[way] for way in plan.objectives.values()])


class Queue:
    """Jobs of one sweep; every process opens its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self.distributions = distributions(plan)
        self._storage = storage(plan.settings.storage, folder)
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=plan.id,
            sampler=sampler(plan.settings.sampler),
            pruner=pruner(plan.settings.pruner),
            directions=[DIRECTIONS[direction] for direction in plan.objectives.values()],
            load_if_exists=True,
        )

    def fill(self) -> None:
        """Queues all jobs of a grid; a sampler's are drawn when they are taken."""
        for number, (cell, repeat) in enumerate(self._planned()):
            self.enqueue(cell, number, repeat, attempt=0)

    def restore(self, done: Mapping[int, FrozenTrial], begun: Mapping[int, Begun]) -> None:
        """Makes an empty queue that of a sweep with these jobs; all others of a grid wait."""
        for trial in done.values():
            self.study.add_trial(trial)
        planned = {number: Begun(*job) for number, job in enumerate(self._planned())}
        waiting = {number: job for number, job in (planned | dict(begun)).items() if number not in done}
        for number, (cell, repeat) in sorted(waiting.items()):
            self.enqueue(cell, number, repeat, attempt=0)

    def take(self) -> Job | None:
        """The next job; None when nothing is left. One process at a time asks."""
        with _alone(self._folder / LOCK):
            if self.waiting():
                return self._asked()
            if not self.left():
                return None
            trial = draw(self.study, self._plan, self.jobs().values())
            return None if trial is None else self._new(trial)

    def waiting(self) -> int:
        return len(self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def left(self) -> int:
        """How many jobs `take` gives at most: those that wait, and those that a sampler may still draw."""
        if self._plan.settings.sampler == "grid":
            return self.waiting()
        return self.waiting() + max(0, self._wanted() - len(self.jobs()))

    def discard(self) -> None:
        """With all that was ever in it."""
        optuna.delete_study(study_name=self._plan.id, storage=self._storage)
        (self._folder / STUDY).unlink(missing_ok=True)

    def jobs(self) -> dict[int, FrozenTrial]:
        """Number -> its last attempt."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs["job"]: trial for trial in trials if "job" in trial.user_attrs}

    def finished(self, job: Job, values: Sequence[float]) -> None:
        self.study.tell(job.trial, list(values))

    def pruned(self, job: Job) -> None:
        self.study.tell(job.trial, state=TrialState.PRUNED)

    def failed(self, job: Job, error: str) -> None:
        job.trial.set_user_attr("error", error)
        self.study.tell(job.trial, state=TrialState.FAIL)

    def killed(self, trial: FrozenTrial) -> None:
        """Ends an attempt whose process is gone."""
        self.study.tell(trial.number, state=TrialState.FAIL)

    def enqueue(self, cell: Cell, number: int, repeat: int, attempt: int) -> None:
        """To be taken after all that wait."""
        attributes = {"job": number, "repeat": repeat, "attempt": attempt}
        self.study.enqueue_trial(dict(cell), user_attrs=attributes)

    def failures(self) -> int:
        return sum(trial.state == TrialState.FAIL for trial in self.jobs().values())

    def _planned(self) -> list[tuple[Cell, int]]:
        return self._plan.jobs() if self._plan.settings.sampler == "grid" else []

    def _wanted(self) -> int:
        return int(self._plan.settings.n_trials) * int(self._plan.settings.repeats)

    def _asked(self) -> Job:
        trial = self.study.ask(self.distributions)
        attributes = trial.user_attrs
        return Job(trial, attributes["job"], dict(trial.params), attributes["repeat"], attributes["attempt"])

    def _new(self, trial: Trial) -> Job:
        number = len(self.jobs())
        for name, value in {"job": number, "repeat": 0, "attempt": 0}.items():
            trial.set_user_attr(name, value)
        for repeat in range(1, self._plan.settings.repeats):
            self.enqueue(dict(trial.params), number + repeat, repeat, attempt=0)
        return Job(trial, number, dict(trial.params), 0, 0)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Until the end of the block, or of the process, no other one is in it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
