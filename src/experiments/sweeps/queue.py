"""The queue of a sweep: an Optuna study that processes and machines share."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from experiments.cli.safe_text import safe_text
from experiments.errors import ConfigError, reading
from experiments.files import locked
from experiments.records.sweep_plan import STUDY, has_plan, plan_record
from experiments.sweeps.members import WORKER, Members
from experiments.sweeps.plan import Plan
from experiments.sweeps.samplers import chosen, count_again, distributions, try_out
from experiments.sweeps.search_space import Cell
from experiments.sweeps.study_storage import storage
from experiments.tracking.liveness import LOOK_SECONDS

SLOT = "slot"
"""User attribute of a trial: number of the job that it becomes when a sampler has drawn its values."""
TRIES = 1000
"""Maximum number of draws for one job, as excluded and repeated combinations are drawn again."""
DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


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
    """Jobs of one sweep. Each process opens its own instance; `new` creates the study."""

    def __init__(self, folder: Path, plan: Plan, *, new: bool = False) -> None:
        self._folder, self._plan, self._distributions = folder, plan, distributions(plan)
        self._storage = self._created() if new else storage(plan.settings.storage, folder)
        parts = {key: chosen(plan.settings[key], key) for key in ("sampler", "pruner")}
        self.study = optuna.load_study(storage=self._storage, study_name=plan.id, **parts)
        self.members = Members(self.study, folder)

    def _created(self) -> BaseStorage:
        """Storage with a new study and its plan. Of two processes that start in the folder, only one succeeds."""
        plan, path = self._plan, self._folder / STUDY
        with ExitStack() as stack:
            if plan.settings.storage is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path.with_name(f"{STUDY}.lock"), remove=True))
                if not has_plan(self._folder):  # An earlier process was killed in this block.
                    path.unlink(missing_ok=True)
                path.touch(0o600, exist_ok=False)
            made = storage(plan.settings.storage, self._folder)
            ways = [DIRECTIONS[direction] for direction in plan.objectives.values()]
            # It exists if the answer of the database was lost.
            study = optuna.create_study(storage=made, study_name=plan.id, directions=ways, load_if_exists=True)
            study.set_user_attr("plan", self._record())
        return made

    def _record(self) -> dict[str, Any]:
        return plan_record(self._plan.id, self._plan.typed, self._plan.digests(), self._folder)

    @classmethod
    def of_another_start(cls, folder: Path, plan: Plan) -> Self:
        """Raises TrackingError if the queue contains anything else than jobs of this plan, or code."""
        with reading(f"the queue of the sweep in {folder}"):
            queue, repeats = cls(folder, plan), plan.settings.repeats
            for trial in queue.study.get_trials(deepcopy=False):
                if any("cma" in name for name in trial.system_attrs):
                    raise ValueError("optuna's CmaEsSampler has written pickles into it, which can execute code")
                found = trial.user_attrs
                numbers: list[Any] = [found.get(key) for key in ("job", "repeat", "attempt")]
                numbers = numbers if "job" in found else [found.get(SLOT, 0), 0, 0]
                if {*map(type, numbers)} != {int} or min(numbers) < 0 or numbers[0] % repeats != numbers[1]:
                    raise ValueError(f"the numbers of trial {trial.number} are wrong")
                for name, distribution in queue._distributions.items() if "job" in found else ():
                    distribution.to_internal_repr(cell_of(trial)[name])  # raises an error for a value of another plan
        return queue

    def fill(self) -> None:
        """Stores the plan of this start, and queues the jobs that are missing.

        They are missing if the sweep is new, sweep.n_trials was raised, or a process was killed. Samplers have slots
        instead: a worker that takes one draws its values.
        """
        plan, repeats = self._plan, self._plan.settings.repeats
        self.study.set_user_attr("plan", self._record())
        slots, jobs = self._slots(), self.jobs()  # in this order, as live workers turn slots into jobs
        if plan.settings.sampler == "grid":
            cells = {index * repeats: cell for index, cell in enumerate(plan.cells())}
            firsts = range(0)
        else:
            cells = {number - trial.user_attrs["repeat"]: cell_of(trial) for number, trial in jobs.items()}
            endless = any(part.interval for part in plan.space)
            draws = min(plan.settings.n_trials, sys.maxsize if endless else len(plan.cells()))
            firsts = range(0, draws * repeats, repeats)
        for trial in slots:
            if trial.state == TrialState.WAITING and trial.user_attrs[SLOT] not in firsts:
                self.killed(trial)
        for first in sorted({*cells, *firsts} - {trial.user_attrs[SLOT] for trial in slots}):
            if first not in cells:
                self._queue_slot(first)
            for repeat in range(repeats) if first in cells else ():
                if first + repeat not in jobs:
                    self.enqueue(cells[first], first + repeat, repeat, attempt=0)

    def take(self, worker: str) -> Job | None:
        """Returns the next job for the member `worker`, or None if none waits. Each waiting trial is taken only once.

        Raises ConfigError if a sampler finds no combination.
        """
        for _ in range(TRIES):
            if not self.left():
                return None
            trial = self.study.ask(self._distributions)
            trial.set_user_attr("worker", worker)
            taken, cell = trial.user_attrs, dict(trial.params)
            if "job" in taken:
                return Job(trial, taken["job"], cell, taken["repeat"], taken["attempt"])
            if SLOT not in taken:  # Another process took the last one, and Optuna created this trial.
                self.study.tell(trial, state=TrialState.FAIL)
            elif not self._is_drawn_again(trial):
                for repeat in range(1, self._plan.settings.repeats):
                    self.enqueue(cell, taken[SLOT] + repeat, repeat, attempt=0)
                for name, value in {"repeat": 0, "attempt": 0, "job": taken[SLOT]}.items():
                    trial.set_user_attr(name, value)  # the number is the last one: a trial without it is a slot
                return Job(trial, taken[SLOT], cell, 0, 0)
        raise ConfigError(f"sweep.exclude left out {TRIES} draws of sweep.sampler in a row. Loosen its rules.")

    def _is_drawn_again(self, trial: Trial) -> bool:
        """Returns True, and queues the slot again, if the combination is excluded or that of another job or draw.

        Processes that draw the same one at once all reject it, as each stores its draw before it reads the others.
        """
        others = [*self._slots(), *self.jobs().values()]
        equal = [other for other in others if other.number != trial.number and cell_of(other) == trial.params]
        again = bool(equal) or self._plan.excludes(dict(trial.params))
        if again:
            self._queue_slot(trial.user_attrs[SLOT])
            count_again(self.study, trial, equal)
        return again

    def left(self) -> int:
        """Number of jobs that wait, or that waiting slots will become."""
        waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        return sum(self._plan.settings.repeats if SLOT in trial.user_attrs else 1 for trial in waiting)

    def orphans(self) -> list[FrozenTrial]:
        """Trials whose worker was killed: jobs, and slots without a complete draw."""
        running = self._running()
        living = {*self.members.living(WORKER)}
        # A worker sets its name just after it has taken a trial. One that has ended since has finished its trial.
        owners = {*living, ""} if living else living
        still = {trial.number for trial in self._running()}
        return [
            each for each in running if each.number in still and str(each.user_attrs.get("worker", "")) not in owners
        ]

    def wait_for_others(self) -> None:
        """Waits until no job runs, as workers that have joined the sweep may be at work, or until one was killed."""
        while self._running() and not self.orphans():
            time.sleep(LOOK_SECONDS)

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

    def killed(self, trial: FrozenTrial | Trial) -> None:
        """Fails an attempt whose process has ended or ends, or a slot."""
        self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def release(self, job: Job) -> None:
        """Queues a job again whose worker was stopped, without charging it an attempt."""
        self.killed(job.trial)
        self.enqueue(job.cell, job.number, job.repeat, job.attempt)

    def enqueue(self, cell: Cell, number: int, repeat: int, attempt: int) -> None:
        """Queues an attempt behind the waiting ones."""
        attributes = {"job": number, "repeat": repeat, "attempt": attempt}
        self.study.enqueue_trial(dict(cell), user_attrs=attributes)

    def _queue_slot(self, number: int) -> None:
        # Unlike `enqueue_trial`, this fixes no values, for which some samplers draw none.
        self.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={SLOT: number}))

    def _slots(self) -> list[FrozenTrial]:
        """Slots that wait, or for which a worker draws values."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        trials = self.study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if SLOT in trial.user_attrs and "job" not in trial.user_attrs]

    def _running(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return [trial for trial in trials if {"job", SLOT} & trial.user_attrs.keys()]

    def position(self) -> str:
        """Number of jobs that have started, of all."""
        jobs = self.jobs().values()
        started = sum(trial.state != TrialState.WAITING for trial in jobs)
        return f"job {started} of {len(jobs) + len(self._slots()) * self._plan.settings.repeats}"

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


def cell_of(trial: FrozenTrial) -> Cell:
    """Combination of a trial, even if its process ended before Optuna copied the queued values to `params`."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
