"""The queue of a sweep: its file after a crash, draws of samplers, and interrupted jobs."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.errors import ExperimentError
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


def queue_of(folder: Path, typed: str, objectives: int = 1, **settings: Any) -> Queue:
    defaults = {"sampler": "grid", "pruner": "none", "n_trials": 9, "repeats": 1, "exclude": [], "storage": None}
    space = tuple(dimensions(OverridesParser.create().parse_overrides([typed]), ()))
    names = {f"metric{number}": "max" for number in range(objectives)}
    nothing, chosen = OmegaConf.create({}), OmegaConf.create({**defaults, **settings})
    return Queue(folder, Plan((typed,), space, (), frozenset(), chosen, nothing, nothing, names, "", {}))


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
