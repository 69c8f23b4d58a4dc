"""The queue of a sweep: its file after a crash, draws of samplers, and interrupted jobs."""

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.exceptions import UpdateFinishedTrialError

from experiments.errors import TrackingError
from experiments.records.sweep_plan import STUDY
from experiments.sweeps.failures import Retries
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import Queue, cell_of
from experiments.sweeps.search_space import dimensions
from experiments.sweeps.study_storage import damaged_queues, storage
from experiments.sweeps.summary import _row


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / STUDY).touch()
    made = optuna.create_study(storage=storage(None, tmp_path), study_name="s")
    made.enqueue_trial({"x": 1})
    return tmp_path / STUDY


def opened(folder: Path) -> optuna.Study:
    return optuna.load_study(storage=storage(None, folder), study_name="s")


def test_torn_last_line_is_dropped(study: Path) -> None:
    before = study.read_bytes()
    study.write_bytes(before + b'{"op_code": 4, "wor')
    assert list(damaged_queues([str(study.parent)])) == []
    opened(study.parent).enqueue_trial({"x": 2})
    assert study.read_bytes().startswith(before + b'{"op_code":4,')
    assert len(opened(study.parent).trials) == 2


@pytest.mark.parametrize("line", [b"{", b"\x00\x00", b"3", b"", b"{}"])
def test_corrupt_line_is_refused_and_listed_by_doctor(study: Path, line: bytes) -> None:
    assert list(damaged_queues([str(study.parent)])) == []
    study.write_bytes(study.read_bytes() + line + b"\n" + study.read_bytes())
    with pytest.raises(TrackingError) as error:
        storage(None, study.parent)
    assert str(error.value).startswith(f"the queue {study} cannot be used: ")
    assert (
        " Expected a complete file, on a disk that all machines share. If it is lost, start the same command again "
        "without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: a grid takes the results of "
        "finished jobs from the store, random and tpe draw again; HYDRA_FULL_ERROR=1 shows"
    ) in str(error.value)
    (finding,) = damaged_queues([str(study.parent)])
    assert (finding.what, finding.name) == ("sweep", str(study.parent))
    assert finding.state == "study.journal is corrupt"
    assert "sweep.reuse=true" in finding.remedy
    assert finding.repair is None


def test_missing_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"the file is missing\. Expected a complete file, on a disk that all"):
        Queue(tmp_path, plan_of("seed=1,2"))
    assert not (tmp_path / STUDY).exists()


def plan_of(typed: str, objectives: int = 1, **settings: Any) -> Plan:
    defaults = {"sampler": "grid", "pruner": "none", "n_trials": 9, "repeats": 1, "exclude": [], "storage": None}
    space = tuple(dimensions(OverridesParser.create().parse_overrides([typed]), ()))
    names = {f"metric{number}": "max" for number in range(objectives)}
    nothing, chosen = OmegaConf.create({}), OmegaConf.create({**defaults, **settings})
    return Plan((typed,), space, (), frozenset(), chosen, nothing, names, {})


def queue_of(folder: Path, typed: str, objectives: int = 1, **settings: Any) -> Queue:
    queue = Queue(folder, plan_of(typed, objectives, **settings), new=True)
    queue.fill()
    return queue


def run_all(queue: Queue) -> list[Any]:
    """Takes and finishes all jobs, and returns their seeds."""
    seeds = []
    while (job := queue.take("worker")) is not None:
        seeds.append(job.cell["seed"])
        if len(queue.study.directions) == 1:
            job.trial.report(0.5, 1)
        queue.finished(job, [0.5] * len(queue.study.directions))
    return seeds


@pytest.mark.parametrize(("sampler", "objectives"), [("tpe", 1), ("random", 1), ("random", 2)])
def test_sampler_draws_each_combination_once(tmp_path: Path, sampler: str, objectives: int) -> None:
    """The draws end when no combination is left, even if n_trials is larger."""
    queue = queue_of(tmp_path, "seed=0,1,2", objectives, sampler=sampler, exclude=[{"seed": 2}])
    assert sorted(run_all(queue)) == [0, 1]


def test_job_killed_before_it_has_values_keeps_its_combination(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "seed=1,2,3")
    queue.study.ask()  # the trial runs, and has no values yet
    Retries(queue, tmp_path, max_retries=2).take_up()
    assert sorted(run_all(queue)) == [1, 2, 3]
    assert {number: cell_of(trial)["seed"] for number, trial in queue.jobs().items()} == {0: 1, 1: 2, 2: 3}


def test_job_of_stopped_worker_is_queued_again_without_charge(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "seed=1,2")
    job = queue.take("worker")
    assert job is not None
    queue.release(job)
    waiting = {number: trial.user_attrs["attempt"] for number, trial in queue.jobs().items()}
    assert waiting == {0: 0, 1: 0}
    assert sorted(run_all(queue)) == [1, 2]


def test_job_that_was_taken_over_is_not_queued_again(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "seed=1,2")
    job = queue.take("worker")
    assert job is not None
    Retries(queue, tmp_path, max_retries=2).take_up()  # no worker of this sweep is listed
    for late in (queue.release, lambda job: queue.finished(job, [0.9]), lambda job: queue.failed(job, "late")):
        with pytest.raises((UpdateFinishedTrialError, ValueError)):
            late(job)
    assert sorted(run_all(queue)) == [1, 2]
    assert [trial.values for trial in queue.jobs().values()] == [[0.5], [0.5]]


def test_summary_lists_waiting_jobs_with_their_values(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "seed=1,2")
    for number, trial in queue.jobs().items():
        row = _row(number, trial, ["val_accuracy"], tmp_path, "")
        assert (row["job"], row["state"], row["seed"]) == (number, "WAITING", number + 1)


class Trap:
    """Object whose pickle fails the test when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was read",)


def refused(folder: Path, plan: Plan) -> str:
    with pytest.raises(TrackingError) as error:
        Queue.of_another_start(folder, plan)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("the queue ")
    assert " cannot be used: " in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"job": value} for value in ("../../victim", None, True, [0], 0.5)),
        *({"repeat": value} for value in ("0", 0.5, None)),
        *({"attempt": {}}, {"job": -1}, {"repeat": 1}, {"attempt": -1}),
    ],
    ids=str,
)
def test_wrong_attributes_of_job_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = plan_of("seed=1,2")
    queue = Queue(tmp_path, plan, new=True)
    queue.fill()
    assert len(Queue.of_another_start(tmp_path, plan).jobs()) == 2
    for name, value in changes.items():
        queue.study._storage.set_trial_user_attr(queue.study.get_trials()[0]._trial_id, name, value)
    refused(tmp_path, plan)


@pytest.mark.parametrize(
    ("typed", "cells"),
    [
        ("seed=1,2", [{"seed": 7}, {"seed": "1"}, {"seed": None}, {}, {"other": 1}]),
        ("a=interval(0,1)", [{"a": "${oc.env:HOME}"}, {"a": None}, {"a": [1]}]),
    ],
)
def test_values_of_another_plan_are_refused(tmp_path: Path, typed: str, cells: list[dict[str, Any]]) -> None:
    for number, cell in enumerate(cells):
        plan = plan_of(typed, sampler="random")
        (tmp_path / STUDY).unlink(missing_ok=True)
        Queue(tmp_path, plan, new=True).enqueue(cell, number, 0, attempt=0)
        assert "numbers of trial" not in refused(tmp_path, plan)


@pytest.mark.parametrize("name", ["cma:optimizer:0", "sepcma:optimizer:0", "cmawm:optimizer:1"])
def test_pickles_in_queue_are_refused(tmp_path: Path, name: str) -> None:
    """CmaEsSampler unpickles these attributes when it draws."""
    plan = plan_of("seed=1,2")
    queue = Queue(tmp_path, plan, new=True)
    queue.fill()
    trap = pickle.dumps(Trap()).hex()
    queue.study._storage.set_trial_system_attr(queue.study.get_trials()[0]._trial_id, name, trap)
    assert "optuna's CmaEsSampler has written pickles into it, which can execute code" in refused(tmp_path, plan)


def test_wrong_events_are_refused(tmp_path: Path) -> None:
    plan = plan_of("seed=1,2")
    Queue(tmp_path, plan, new=True).fill()
    before = (tmp_path / STUDY).read_text()
    for event in (
        "{}",
        '{"op_code": 99, "worker_id": "w"}',
        '{"op_code": "x", "worker_id": "w"}',
        '{"op_code": 0, "worker_id": "w"}',
        '{"op_code": 0, "worker_id": "w", "study_name": "s", "directions": 3}',
        '{"op_code": 5, "worker_id": "w", "trial_id": 0, "param_name": "a", "distribution": "x"}',
        '{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": 3}',
    ):
        (tmp_path / STUDY).write_text(before + event + "\n")
        assert refused(tmp_path, plan).endswith("HYDRA_FULL_ERROR=1 shows where this came from.")
