"""The queue of a sweep: an optuna study that processes and machines share."""

import fcntl
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.errors import ConfigError
from experiments.sweeps.plan import Plan
from experiments.sweeps.samplers import pruner, sampler, try_out
from experiments.sweeps.space import Cell, Dimension
from experiments.sweeps.study_file import storage

LOCK = "study.lock"
TRIES = 1000
"""Draws after which a sampler that meets excluded cells only is given up."""
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
    distributions = {dimension.name: _distribution(dimension) for dimension in plan.space}
    try_out(plan.settings.sampler, distributions, [DIRECTIONS[way] for way in plan.objectives.values()])


class Queue:
    """Jobs of one sweep; every process opens its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._aside: dict[int, int] = {}  # number -> attempt
        self.distributions = {dimension.name: _distribution(dimension) for dimension in plan.space}
        self.study = optuna.create_study(
            storage=storage(plan.settings.storage, folder),
            study_name=plan.id,
            sampler=sampler(plan.settings.sampler),
            pruner=pruner(plan.settings.pruner),
            directions=[DIRECTIONS[direction] for direction in plan.objectives.values()],
            load_if_exists=True,
        )

    def fill(self) -> None:
        """Queues what there is to do while no worker runs: all of a grid, or what a stopped sweep has left.

        A sampler's jobs are drawn when they are taken.
        """
        begun = self.jobs()
        if begun:
            self._take_up(begun)
            return
        if self._plan.settings.sampler != "grid":
            return
        for number, (cell, repeat) in enumerate(self._plan.jobs()):
            self._enqueue(cell, number, repeat, attempt=0)

    def restore(self, done: Mapping[int, FrozenTrial], begun: Mapping[int, Begun]) -> None:
        """Makes an empty queue that of a sweep with these jobs; all others of a grid wait."""
        for trial in done.values():
            self.study.add_trial(trial)
        planned = enumerate(self._plan.jobs()) if self._plan.settings.sampler == "grid" else ()
        waiting = {number: Begun(*job) for number, job in planned if number not in done} | dict(begun)
        for number, (cell, repeat) in sorted(waiting.items()):
            self._enqueue(cell, number, repeat, attempt=0)

    def take(self) -> Job | None:
        """The next job; None when nothing is left. One process at a time asks."""
        with _alone(self._folder / LOCK):
            if self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                return self._asked()
            if self._plan.settings.sampler == "grid" or len(self.jobs()) >= self._wanted():
                return None
            return self._drawn()

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

    def put_aside(self) -> bool:
        """Ends the jobs whose worker was killed, perhaps by them; False where there is none.

        One that ran alone has done it, and has used up an attempt. Of several nobody knows which one did.
        """
        killed = {number: trial for number, trial in self.jobs().items() if _is_running(trial)}
        for number, trial in killed.items():
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._aside[number] = trial.user_attrs["attempt"] + (len(killed) == 1)
        return bool(killed)

    def queue_one_put_aside(self) -> bool:
        """To be run alone; False where none is left."""
        while self._aside:
            number, attempt = self._aside.popitem()
            if attempt <= self._plan.settings.max_retries:
                trial = self.jobs()[number]
                self._enqueue(trial.params, number, trial.user_attrs["repeat"], attempt)
                return True
        return False

    def _take_up(self, begun: dict[int, FrozenTrial]) -> None:
        """Queues again what was stopped, and what failed less than `max_retries` times."""
        for number, trial in begun.items():
            attempt, repeat = trial.user_attrs["attempt"], trial.user_attrs["repeat"]
            if _is_running(trial):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._enqueue(trial.params, number, repeat, attempt)
            elif trial.state == TrialState.FAIL and attempt < self._plan.settings.max_retries:
                self._enqueue(trial.params, number, repeat, attempt + 1)

    def failures(self) -> int:
        return sum(trial.state == TrialState.FAIL for trial in self.jobs().values())

    def _wanted(self) -> int:
        return int(self._plan.settings.n_trials) * int(self._plan.settings.repeats)

    def _enqueue(self, cell: Cell, number: int, repeat: int, attempt: int) -> None:
        attributes = {"job": number, "repeat": repeat, "attempt": attempt}
        self.study.enqueue_trial(dict(cell), user_attrs=attributes)

    def _asked(self) -> Job:
        trial = self.study.ask(self.distributions)
        attributes = trial.user_attrs
        return Job(trial, attributes["job"], dict(trial.params), attributes["repeat"], attributes["attempt"])

    def _drawn(self) -> Job | None:
        """None where every cell was drawn before."""
        for _ in range(TRIES):
            if len(self._drawn_cells()) >= self._size():
                return None
            trial = self.study.ask(self.distributions)
            if not self._is_done_with(trial):
                return self._new(trial)
        raise ConfigError(f"sweep.exclude left out {TRIES} draws of sweep.sampler in a row. Loosen its rules.")

    def _is_done_with(self, trial: Trial) -> bool:
        """What is left out, or equal to an earlier job, whose result then counts again."""
        if self._plan.excludes(dict(trial.params)):
            self.study.tell(trial, state=TrialState.FAIL)
            return True
        earlier = self._drawn_cells().get(_key(trial.params))
        if earlier is None:
            return False
        for step, value in earlier.intermediate_values.items():
            trial.report(value, step)
        done = earlier.state in (TrialState.COMPLETE, TrialState.PRUNED)
        complete = earlier.state == TrialState.COMPLETE
        self.study.tell(trial, earlier.values if complete else None, earlier.state if done else TrialState.FAIL)
        return True

    def _drawn_cells(self) -> dict[Hashable, FrozenTrial]:
        return {_key(trial.params): trial for trial in self.jobs().values()}

    def _size(self) -> float:
        """Number of cells that can be drawn."""
        return math.inf if any(part.interval for part in self._plan.space) else len(self._plan.cells())

    def _new(self, trial: Trial) -> Job:
        number = len(self.jobs())
        for name, value in {"job": number, "repeat": 0, "attempt": 0}.items():
            trial.set_user_attr(name, value)
        for repeat in range(1, self._plan.settings.repeats):
            self._enqueue(dict(trial.params), number + repeat, repeat, attempt=0)
        return Job(trial, number, dict(trial.params), 0, 0)


def _key(cell: Cell) -> Hashable:
    return tuple(sorted(cell.items()))


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.interval is None:
        return CategoricalDistribution(dimension.labels)
    low, high = cast(tuple[float, float], (dimension.interval.start, dimension.interval.end))
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Until the end of the block, or of the process, no other one is in it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
