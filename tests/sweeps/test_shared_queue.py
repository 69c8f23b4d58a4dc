"""A queue that several processes share, in a file and in a database, and that is killed at each of its writes."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend
from tests.postgres import postgres
from tests.sweeps.test_queue import plan_of

from experiments.sweeps.failures import Retries
from experiments.sweeps.members import WORKER
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import Queue, cell_of

POSTGRES = pytest.param("postgres", marks=[pytest.mark.servers, pytest.mark.long])
SEEDED = {"_target_": "optuna.samplers.RandomSampler", "seed": 1}
SHAPES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "grid": ("seed=range(20)", 20, 1, {}),
    "repeats": ("seed=range(5)", 10, 2, {"sampler": "random", "n_trials": 9, "repeats": 2}),
    "interval": ("x=interval(0,1)", 9, 1, {"sampler": "tpe"}),
    "equal draws": ("seed=range(6)", 5, 1, {"sampler": SEEDED, "n_trials": 5}),
}
"""Typed override, number of jobs, number of jobs with equal values, and settings."""


@pytest.fixture(scope="module", params=["file", POSTGRES])
def address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "file":
        yield None
    else:
        with postgres() as url:
            yield url


def forked(work: Callable[[], object]) -> int:
    """Process id of a fork that calls `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def work(folder: Path, plan: Plan, taken: Path | None = None) -> None:
    """Takes and finishes jobs until none waits, and writes their numbers and values to `taken`."""
    queue = Queue(folder, plan)
    with queue.members.joined(WORKER) as name:
        while (job := queue.take(name)) is not None:
            if taken is not None:
                with taken.open("a") as file:
                    file.write(json.dumps([job.number, job.cell]) + "\n")
            queue.finished(job, [0.5])


@pytest.mark.parametrize("shape", SHAPES)
def test_processes_take_each_job_and_draw_each_combination_once(
    address: str | None, shape: str, tmp_path: Path
) -> None:
    typed, count, equal, settings = SHAPES[shape]
    plan = plan_of(typed, storage=address, **settings)
    # Only forks open the database, as Optuna leaves its connections open.
    assert ended(forked(lambda: Queue(tmp_path, plan, new=True).fill())) == 0
    children = [forked(partial(work, tmp_path, plan, tmp_path / f"taken{number}")) for number in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    taken = [json.loads(line) for path in tmp_path.glob("taken*") for line in path.read_text().splitlines()]
    assert sorted(number for number, _ in taken) == list(range(count))
    assert set(Counter(json.dumps(cell) for _, cell in taken).values()) == {equal}


def start(folder: Path, plan: Plan) -> None:
    """Does what a sweep process does, without its parent run."""
    is_new = not any(folder.iterdir())
    queue = Queue(folder, plan, new=True) if is_new else Queue.of_another_start(folder, plan)
    with queue.members.leading():
        Retries(queue, folder, max_retries=1).take_up()
        queue.members.open()
        work(folder, plan)


def killed_at(write: int, torn: bool, folder: Path, plan: Plan) -> None:
    """Kills this process at a write to the file, or in the middle of it."""
    append, count = JournalFileBackend.append_logs, 0

    def counted(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal count
        count += 1
        if count == write:
            if torn:
                with Path(self._file_path).open("a") as file:
                    file.write(json.dumps(logs[0])[:-9])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, logs)

    JournalFileBackend.append_logs = counted  # type: ignore[method-assign]
    start(folder, plan)


KILLED: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "grid": ("seed=1,2", 2, 1, {}),
    "repeats": ("seed=1,2,3", 4, 2, {"sampler": "random", "n_trials": 2, "repeats": 2}),
}


@pytest.mark.parametrize("shape", KILLED)
def test_sweep_killed_at_any_write_completes_each_job_once(shape: str, tmp_path: Path) -> None:
    """Only a write before the plan is stored may leave no sweep, which is then started as a new one."""
    typed, count, repeats, settings = KILLED[shape]
    status, write = -9, 2  # the first write creates the study
    while status == -9:
        folder, plan = tmp_path / f"{write}", plan_of(typed, **settings)
        folder.mkdir()
        status = ended(forked(partial(killed_at, write, write % 2 == 0, folder, plan)))
        start(folder, plan)
        jobs = Queue.of_another_start(folder, plan).jobs()
        assert {number: trial.state.name for number, trial in jobs.items()} == dict.fromkeys(range(count), "COMPLETE")
        trials = Queue(folder, plan).study.get_trials()
        done = [each.user_attrs["job"] for each in trials if each.values and "job" in each.user_attrs]
        assert sorted(done) == list(range(count)), write
        cells = [cell_of(jobs[number])["seed"] for number in range(count)]
        assert cells[::repeats] == cells[repeats - 1 :: repeats], write
        assert len(set(cells)) == count // repeats, write
        write += 1
    assert status == 0
    assert write > 15
