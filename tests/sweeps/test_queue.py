"""The queue of a sweep: its file after a crash, draws of samplers, and interrupted jobs."""

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.errors import ExperimentError, TrackingError
from experiments.files import drop_torn_line
from experiments.records.plan_file import PLAN
from experiments.sweeps.failures import Retries
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import STUDY, Queue, cell_of, damaged_line, damaged_queues, require_whole, storage
from experiments.sweeps.search_space import dimensions
from experiments.sweeps.summary import _row
from experiments.tracking.liveness import run_lock


@pytest.fixture
def study(tmp_path: Path) -> Path:
    made = optuna.create_study(storage=storage(None, tmp_path), study_name="s")
    made.enqueue_trial({"x": 1})
    return tmp_path / STUDY


def test_complete_file_is_unchanged(study: Path) -> None:
    require_whole(study.parent)
    before = study.read_bytes()
    drop_torn_line(study)
    assert study.read_bytes() == before


def test_torn_last_line_is_dropped(study: Path) -> None:
    before = study.read_bytes()
    study.write_bytes(before + b'{"op_code": 4, "wor')
    require_whole(study.parent)
    drop_torn_line(study)
    assert study.read_bytes() == before
    optuna.load_study(storage=storage(None, study.parent), study_name="s").enqueue_trial({"x": 2})
    assert len(optuna.load_study(storage=storage(None, study.parent), study_name="s").trials) == 2


@pytest.mark.parametrize("line", [b"{", b"\x00\x00", b"3", b""])
def test_corrupt_line_is_named(study: Path, line: bytes) -> None:
    study.write_bytes(study.read_bytes() + line + b"\n" + b'{"op_code": 0}\n')
    last = len(study.read_bytes().splitlines())
    assert damaged_line(study.parent) == last - 1
    with pytest.raises(ExperimentError) as error:
        require_whole(study.parent)
    assert str(error.value) == (
        f"the queue {study} is corrupt: expected an event in line {last - 1}, received something else. "
        "Start the same command again without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: "
        "a grid takes the results of finished jobs from the store, random and tpe draw again."
    )


def test_doctor_lists_corrupt_queue(study: Path) -> None:
    (study.parent / PLAN).touch()
    assert list(damaged_queues([str(study.parent)])) == []
    study.write_bytes(b"{\n" + study.read_bytes())
    (finding,) = damaged_queues([str(study.parent)])
    assert (finding.what, finding.name) == ("sweep", str(study.parent))
    assert finding.state == "line 1 of study.journal is corrupt"
    assert "sweep.reuse=true" in finding.remedy
    assert finding.repair is None
    with run_lock(study.parent):
        assert list(damaged_queues([str(study.parent)])) == []


def test_missing_file_is_accepted(tmp_path: Path) -> None:
    drop_torn_line(tmp_path / STUDY)
    require_whole(tmp_path)
    assert not (tmp_path / STUDY).exists()


def plan_of(typed: str, objectives: int = 1, **settings: Any) -> Plan:
    defaults = {"sampler": "grid", "pruner": "none", "n_trials": 9, "repeats": 1, "exclude": [], "storage": None}
    space = tuple(dimensions(OverridesParser.create().parse_overrides([typed]), ()))
    names = {f"metric{number}": "max" for number in range(objectives)}
    nothing, chosen = OmegaConf.create({}), OmegaConf.create({**defaults, **settings})
    return Plan((typed,), space, (), frozenset(), chosen, nothing, names, {})


def queue_of(folder: Path, typed: str, objectives: int = 1, **settings: Any) -> Queue:
    return Queue(folder, plan_of(typed, objectives, **settings))


def run_all(queue: Queue) -> list[Any]:
    """Takes and finishes all jobs, and returns their seeds."""
    seeds = []
    while (job := queue.take()) is not None:
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
    queue.fill()
    queue.study.ask()  # the trial runs, and has no values yet
    Retries(queue, tmp_path, max_retries=2).take_up()
    assert sorted(run_all(queue)) == [1, 2, 3]
    assert {number: cell_of(trial)["seed"] for number, trial in queue.jobs().items()} == {0: 1, 1: 2, 2: 3}


def test_summary_lists_waiting_jobs_with_their_values(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "seed=1,2")
    queue.fill()
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
    assert str(error.value).startswith(f"the queue of the sweep in {folder} cannot be used: ")
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"job": value} for value in ("../../victim", None, True, [0], 0.5)),
        *({"repeat": value} for value in ("0", 0.5, None)),
        {"attempt": {}},
    ],
    ids=str,
)
def test_wrong_attributes_of_job_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = plan_of("seed=1,2")
    queue = Queue(tmp_path, plan)
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
        Queue(tmp_path, plan).enqueue(cell, number, 0, attempt=0)
        assert "are not integers" not in refused(tmp_path, plan)


@pytest.mark.parametrize("name", ["cma:optimizer:0", "sepcma:optimizer:0", "cmawm:optimizer:1"])
def test_pickles_in_queue_are_refused(tmp_path: Path, name: str) -> None:
    """CmaEsSampler unpickles these attributes when it draws."""
    plan = plan_of("seed=1,2")
    queue = Queue(tmp_path, plan)
    queue.fill()
    trap = pickle.dumps(Trap()).hex()
    queue.study._storage.set_trial_system_attr(queue.study.get_trials()[0]._trial_id, name, trap)
    assert "optuna's CmaEsSampler has written pickles into it, which can execute code" in refused(tmp_path, plan)


def test_wrong_events_are_refused(tmp_path: Path) -> None:
    plan = plan_of("seed=1,2")
    Queue(tmp_path, plan).fill()
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
        require_whole(tmp_path)
        assert refused(tmp_path, plan).endswith("HYDRA_FULL_ERROR=1 shows where this came from.")
