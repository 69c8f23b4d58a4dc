"""The queue of a sweep: an Optuna study that processes and machines share."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.cli.safe_text import safe_text
from experiments.errors import ExperimentError, reading
from experiments.files import locked
from experiments.repair.base import Finding
from experiments.sweeps.plan import Plan
from experiments.sweeps.samplers import chosen, distributions, draw, try_out
from experiments.sweeps.search_space import Cell
from experiments.sweeps.stopped_sweep import REMEDY, sweeps
from experiments.tracking.liveness import is_in_use

STUDY = "study.journal"
LOCK = "study.lock"
DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Job:
    """An attempt of a job: one trial of the study. All attempts share `number`; `repeat` is the index of the seed."""

    trial: Trial
    number: int
    cell: Cell
    repeat: int
    attempt: int


def check_sampler(plan: Plan) -> None:
    """Raises ConfigError if the sampler or the pruner cannot be used."""
    chosen(plan.settings.pruner, "pruner")
    try_out(plan.settings.sampler, distributions(plan), [DIRECTIONS[way] for way in plan.objectives.values()])


class Queue:
    """Jobs of one sweep. Each process opens its own instance."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._distributions = distributions(plan)
        self._storage = storage(plan.settings.storage, folder)
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=plan.id,
            sampler=chosen(plan.settings.sampler, "sampler"),
            pruner=chosen(plan.settings.pruner, "pruner"),
            directions=[DIRECTIONS[direction] for direction in plan.objectives.values()],
            load_if_exists=True,
        )

    @classmethod
    def of_another_start(cls, folder: Path, plan: Plan) -> Self:
        """Raises TrackingError if the queue contains anything else than jobs of this plan, or code."""
        with reading(f"the queue of the sweep in {folder}"):
            queue = cls(folder, plan)
            for trial in queue.study.get_trials(deepcopy=False):
                if any("cma" in name for name in trial.system_attrs):
                    raise ValueError("optuna's CmaEsSampler has written pickles into it, which can execute code")
                numbers = [trial.user_attrs.get(name) for name in ("job", "repeat", "attempt")]
                if "job" in trial.user_attrs and [*map(type, numbers)] != [int] * 3:
                    raise ValueError(f"the numbers of trial {trial.number} are not integers")
                for name, distribution in queue._distributions.items() if "job" in trial.user_attrs else ():
                    distribution.to_internal_repr(cell_of(trial)[name])  # raises an error for a value of another plan
        return queue

    def fill(self) -> None:
        """Queues all jobs of a grid. Samplers draw a job when it is taken."""
        if self._plan.settings.sampler == "grid":
            for number, (cell, repeat) in enumerate(self._plan.jobs()):
                self.enqueue(cell, number, repeat, attempt=0)

    def take(self) -> Job | None:
        """Returns the next job, or None if none is left. A lock admits one process at a time."""
        with locked(self._folder / LOCK):
            if self.waiting():
                trial = self.study.ask(self._distributions)
                number, repeat, attempt = (trial.user_attrs[name] for name in ("job", "repeat", "attempt"))
                return Job(trial, number, dict(trial.params), repeat, attempt)
            if not self.left():
                return None
            drawn = draw(self.study, self._plan, self.jobs().values())
            return None if drawn is None else self._new(drawn)

    def waiting(self) -> int:
        return len(self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def left(self) -> int:
        """Maximum number of jobs that `take` still returns: waiting ones and those that a sampler may draw."""
        settings = self._plan.settings
        drawn = 0 if settings.sampler == "grid" else max(0, settings.n_trials * settings.repeats - len(self.jobs()))
        return self.waiting() + drawn

    def discard(self) -> None:
        """Deletes the study and its file."""
        optuna.delete_study(study_name=self._plan.id, storage=self._storage)
        (self._folder / STUDY).unlink(missing_ok=True)

    def jobs(self) -> dict[int, FrozenTrial]:
        """Maps each job number to its last attempt."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs["job"]: trial for trial in trials if "job" in trial.user_attrs}

    def finished(self, job: Job, values: Sequence[float]) -> None:
        self.study.tell(job.trial, list(values))

    def pruned(self, job: Job) -> None:
        self.study.tell(job.trial, state=TrialState.PRUNED)

    def failed(self, job: Job, error: str) -> None:
        job.trial.set_user_attr("error", safe_text(error))
        self.study.tell(job.trial, state=TrialState.FAIL)

    def killed(self, trial: FrozenTrial) -> None:
        """Fails an attempt whose process has ended."""
        self.study.tell(trial.number, state=TrialState.FAIL)

    def enqueue(self, cell: Cell, number: int, repeat: int, attempt: int) -> None:
        """Queues an attempt behind the waiting ones."""
        attributes = {"job": number, "repeat": repeat, "attempt": attempt}
        self.study.enqueue_trial(dict(cell), user_attrs=attributes)

    def position(self) -> str:
        """Number of jobs that have started, of all."""
        jobs = self.jobs().values()
        started = sum(trial.state != TrialState.WAITING for trial in jobs)
        return f"job {started} of {len(jobs) + self.left() - self.waiting()}"

    def outlook(self) -> str:
        """Best job so far, and the remaining time, if each remaining job takes the mean time of the finished ones."""
        number, best = self.complete()[0]
        mean = fmean(trial.duration.total_seconds() for _, trial in self.complete() if trial.duration)
        seconds = mean * self.left() / self._plan.settings.workers
        return f"best #{number} {best.values[0]:.4f}" + (f", about {seconds:.0f} s left" if seconds else "")

    def complete(self) -> list[tuple[int, FrozenTrial]]:
        """Numbers and trials of the finished jobs, the best by the first objective first."""
        sign = 1 if next(iter(self._plan.objectives.values())) == "min" else -1
        done = [job for job in sorted(self.jobs().items()) if job[1].state == TrialState.COMPLETE]
        return sorted(done, key=lambda job: sign * job[1].values[0])

    def has_failed(self) -> bool:
        """Returns True if sweep.max_failures jobs have failed, after which no other job starts."""
        most: int | None = self._plan.settings.max_failures
        return most is not None and sum(trial.state == TrialState.FAIL for trial in self.jobs().values()) >= most

    def _new(self, trial: Trial) -> Job:
        number = len(self.jobs())
        for name, value in {"repeat": 0, "attempt": 0, "job": number}.items():
            trial.set_user_attr(name, value)  # the number is the last one: a trial without it is not a job
        for repeat in range(1, self._plan.settings.repeats):
            self.enqueue(dict(trial.params), number + repeat, repeat, attempt=0)
        return Job(trial, number, dict(trial.params), 0, 0)


def storage(address: str | None, folder: Path) -> BaseStorage:
    """Storage of the study: the database at `address`, or the file in the sweep's folder if it is None."""
    if address is None:
        (folder / STUDY).touch(0o600)
        return JournalStorage(JournalFileBackend(str(folder / STUDY)))
    return RDBStorage(address)


def cell_of(trial: FrozenTrial) -> Cell:
    """Combination of a trial, even if its process ended before Optuna copied the queued values to `params`."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def damaged_line(folder: Path) -> int | None:
    """Number of the first corrupt line, from 1, or None. Ignores an incomplete last line, as Optuna does."""
    path = folder / STUDY
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    complete = [line for line in lines if line.endswith(b"\n")]
    return next((number for number, line in enumerate(complete, 1) if not _is_event(line)), None)


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def require_whole(folder: Path) -> None:
    """Raises ExperimentError if the queue file is corrupt."""
    line = damaged_line(folder)
    if line is not None:
        raise ExperimentError(
            f"the queue {folder / STUDY} is corrupt: expected an event in line {line}, received something else. "
            f"{REMEDY[0].upper()}{REMEDY[1:]}."
        )


def damaged_queues(roots: Sequence[str]) -> Iterator[Finding]:
    """Yields the corrupt queues of sweeps at and below `roots` that are not in use."""
    for folder in [folder for root in roots for folder in sweeps(Path(root).expanduser().absolute())]:
        line = damaged_line(folder)
        if line is not None and not is_in_use(folder):
            yield Finding("sweep", str(folder), f"line {line} of {STUDY} is corrupt", REMEDY)
