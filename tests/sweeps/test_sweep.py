"""Sweeps started by the train command, in this process."""

import csv
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna import create_study, load_study

from experiments.cli.entry import run_command
from experiments.records.sweep_plan import STUDY
from experiments.sweeps.members import PARENT
from experiments.sweeps.study_storage import storage
from experiments.train import main

pytestmark = pytest.mark.slow
TINY = (
    *("data=digits", "data.limit=100", "model=mlp", "epochs=1", "progress=none", "logging.log_model=false"),
    *("logging.log_figures=false", "logging.system_metrics=false", "tensorboard.graph=false", "tensorboard.images=0"),
)
ON_END = "on_end=\"sh -c 'cat >> ends.jsonl'\""
Sweep = Callable[..., str | int | None]


@pytest.fixture
def sweep(command: Sweep, tmp_path: Path, empty_store: Path) -> Sweep:
    """Calls the command in a folder with an empty store."""
    shutil.copy(empty_store, tmp_path)
    return command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """Calls the command in an empty folder and returns its exit status."""
    return caller(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Folder with a finished sweep and its store. Tests must not change it."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copy(empty_store, root)
    excluded = "sweep.exclude=[{seed: 1, optimizer.learning_rate: 0.01}]"
    with pytest.MonkeyPatch.context() as patch:
        assert caller(patch, root)("optimizer.learning_rate=1e-3,1e-2", "seed=0,1", excluded, ON_END) is None
    return root


@pytest.fixture
def swept(command: Sweep, finished: Path, tmp_path: Path) -> Sweep:
    """Calls the command in a copy of the folder with the finished sweep."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return command


def caller(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Sweep:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def call(*overrides: str) -> str | int | None:
        monkeypatch.setattr(sys, "argv", ["train", "-m", *TINY, *overrides])
        GlobalHydra.instance().clear()
        try:
            run_command(main, "config")
        except SystemExit as end:
            return end.code
        return None

    return call


def folder(root: Path) -> Path:
    (found,) = root.glob("multirun/*/*")
    return found


def rows(root: Path, name: str = "jobs") -> list[dict[str, str]]:
    with (folder(root) / "summary" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def ends(root: Path) -> list[dict[str, object]]:
    """Results that the command `on_end` has received."""
    return [json.loads(line) for line in (root / "ends.jsonl").read_text().splitlines()]


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def runs(root: Path) -> tuple[Run, list[Run]]:
    """The parent run, and the runs of its jobs in their order."""
    found = client(root).search_runs(["1"])
    (parent,) = [run for run in found if "sweep.job" not in run.data.tags]
    jobs = [run for run in found if "sweep.job" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {parent.info.run_id}
    return parent, sorted(jobs, key=lambda run: int(run.data.tags["sweep.job"]))


def test_grid_is_run_summarized_and_grouped_under_parent_run(finished: Path) -> None:
    found = rows(finished)
    assert [(row["optimizer.learning_rate"], row["seed"], row["state"]) for row in found] == [
        ("0.001", "0", "COMPLETE"),
        ("0.001", "1", "COMPLETE"),
        ("0.01", "0", "COMPLETE"),
    ]
    parent, jobs = runs(finished)
    assert [job.info.run_id for job in jobs] == [row["run_id"] for row in found]
    assert {run.info.status for run in (parent, *jobs)} == {"FINISHED"}
    best = max(found, key=lambda row: float(row["val_accuracy"]))
    assert parent.data.metrics["best"] == float(best["val_accuracy"])
    (end,) = ends(finished)
    assert (end["status"], end["run_id"], end["error"]) == ("FINISHED", parent.info.run_id, None)
    assert (end["monitored"], end["objective"]) == ("val_accuracy", float(best["val_accuracy"]))
    assert [job.data.params["optimizer.learning_rate"] for job in jobs] == ["0.001", "0.001", "0.01"]
    assert [job.info.run_name for job in jobs] == [
        "#0 learning_rate=0.001 seed=0",
        "#1 learning_rate=0.001 seed=1",
        "#2 learning_rate=0.01 seed=0",
    ]
    assert {path.name for path in (folder(finished) / "summary").iterdir()} >= {"jobs.csv", "history.png", "slice.png"}
    links = sorted((folder(finished) / "tensorboard").iterdir())
    assert [str(link.readlink()) for link in links] == [f"../{number}/tensorboard" for number in range(3)]
    assert [str(link.name) for link in links] == [
        f"#{number} learning_rate={row['optimizer.learning_rate']} seed={row['seed']}"
        for number, row in enumerate(found)
    ]
    assert all([*link.glob("events.out.tfevents.*")] for link in links)
    assert (folder(finished) / "0" / "config" / "overrides.yaml").read_text().splitlines()[-2:] == [
        "- optimizer.learning_rate=0.001",
        "- seed=0",
    ]


def test_descriptions_repeat_jobs_and_lead_to_the_best_one(finished: Path) -> None:
    parent, jobs = runs(finished)
    found = rows(finished)
    best = max(range(3), key=lambda number: float(found[number]["val_accuracy"]))
    link = f"#/experiments/1/runs/{jobs[best].info.run_id}?workflowType=machine_learning"
    value = f"{float(found[best]['val_accuracy']):.4g}"
    (end,) = re.findall(r"^\*\*FINISHED.*", parent.data.tags["mlflow.note.content"], re.MULTILINE)
    assert end == f"**FINISHED** Best job [`{jobs[best].info.run_name}`]({link}): `val_accuracy` {value}."
    typed = ["optimizer.learning_rate=1e-3,1e-2", "seed=0,1"]
    command = parent.data.tags["mlflow.note.content"].split("```\n")[1].replace("\\\n", "")
    assert shlex.split(command)[: 3 + len(TINY) + 2] == ["experiments", "train", "-m", *TINY, *typed]
    assert {"mlflow.user", "mlflow.source.name", "command", "started"} <= set(parent.data.tags)
    assert parent.data.params == {}
    inputs = [each.dataset.digest for each in parent.inputs.dataset_inputs]
    assert sorted(inputs) == sorted(each.dataset.digest for each in jobs[best].inputs.dataset_inputs)
    for number, job in enumerate(jobs):
        end, _, command, data = re.split(r"```\n|\n```\n\n|\n\n", job.data.tags["mlflow.note.content"])
        typed = [f"{key}={found[number][key]}" for key in ("optimizer.learning_rate", "seed")]
        assert shlex.split(command.replace("\\\n", "")) == ["experiments", "train", *TINY, ON_END, *typed]
        counts = "100 train, 100 validation, 100 test examples, 10 classes"
        assert data.startswith(f"Data `sklearn.datasets.load_digits`: {counts}, inputs [8, 8, 1] of uint8")
        value = f"{float(found[number]['val_accuracy']):.4g}"
        assert end.startswith(f"**FINISHED** Best `val_accuracy` {value} in epoch 1 of 1;")
    last = jobs[2].data.tags["mlflow.note.content"].partition("\n")[0]
    better = max(range(2), key=lambda number: float(found[number]["val_accuracy"]))
    differing = "optimizer.learning_rate=0.001" + (" seed=1" if better else "")
    assert last.endswith(
        f"Best other job: #{better} with `{differing}`, `val_accuracy` {float(found[better]['val_accuracy']):.4g}."
    )


def test_invalid_value_of_any_job_is_reported_before_first_job(command: Sweep, tmp_path: Path) -> None:
    assert command("model=mlp,cnn", "optimizer.learning_rate=0.1,-1") == (
        "error: the job model=mlp optimizer.learning_rate=-1 cannot run: optimizer.learning_rate=-1.0 is out of range: "
        "expected a number above 0. Change optimizer.learning_rate."
    )
    assert not list(tmp_path.glob("**/*.db"))


def test_preview_runs_nothing(command: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("seed=0,1,2", "sweep.preview=true") is None
    assert "3 jobs. Nothing was run: leave out sweep.preview." in capsys.readouterr().out
    assert not (tmp_path / "mlflow.db").exists()


def test_failed_job_affects_no_other_and_is_retried(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = sweep("optimizer.learning_rate=1e30,1e-3", ON_END)
    assert ended == (
        f"error: 1 job failed: see the logs below {folder(tmp_path)}, and retry it with sweep.resume=last."
    )
    parent, (failed, done) = runs(tmp_path)
    assert (parent.info.status, failed.info.status, done.info.status) == ("FAILED", "FAILED", "FINISHED")
    assert [row["state"] for row in rows(tmp_path)] == ["FAIL", "COMPLETE"]
    assert "the loss is nan at step" in rows(tmp_path)[0]["error"]
    assert "the loss is nan at step" in (folder(tmp_path) / "0" / "train.log").read_text()
    assert str(sweep("sweep.resume=last")).startswith("error: 1 job failed")
    assert len(ends(tmp_path)) == 1  # the recorded command is not executed
    assert str(sweep("sweep.resume=last", ON_END)).startswith("error: 1 job failed")
    assert [end["status"] for end in ends(tmp_path)] == ["FAILED", "FAILED"]
    assert len(client(tmp_path).search_runs(["1"])) == 3


def test_zipped_keys_with_repeats_have_statistics_per_combination(sweep: Sweep, tmp_path: Path) -> None:
    together = "optimizer.learning_rate,optimizer.beta_1"
    overrides = ["optimizer.learning_rate=0.1,0.01", "optimizer.beta_1=0.9,0.8", f"sweep.zip=[[{together}]]"]
    assert sweep(*overrides, "sweep.repeats=2") is None
    found = rows(tmp_path, "cells")
    assert [row[together] for row in found] == ["0.1, 0.9", "0.01, 0.8"]
    assert [row["complete"] for row in found] == ["yes", "yes"]
    values = [float(row["val_accuracy"]) for row in rows(tmp_path)]
    assert [float(row["mean"]) for row in found] == pytest.approx([sum(values[:2]) / 2, sum(values[2:]) / 2])
    assert [row[together] for row in rows(tmp_path)] == ["0.1, 0.9", "0.1, 0.9", "0.01, 0.8", "0.01, 0.8"]
    _, jobs = runs(tmp_path)
    assert [job.data.params["seed"] for job in jobs] == ["0", "1", "0", "1"]
    assert [job.data.params["optimizer.beta_1"] for job in jobs] == ["0.9", "0.9", "0.8", "0.8"]


def test_sampler_draws_combinations_for_several_objectives(sweep: Sweep, tmp_path: Path) -> None:
    overrides = ["optimizer.learning_rate=tag(log,interval(1e-6,1e-1))", "sweep.sampler=tpe", "sweep.n_trials=2"]
    assert sweep(*overrides, "sweep.objectives={val_accuracy: max, val_loss: min}") is None
    rates = {float(row["optimizer.learning_rate"]) for row in rows(tmp_path)}
    assert len(rates) == 2
    assert all(1e-6 <= rate <= 1e-1 for rate in rates)
    assert all(float(row["val_loss"]) > 0 and 0 <= float(row["val_accuracy"]) <= 1 for row in rows(tmp_path))


def test_threshold_pruner_stops_jobs_after_first_epoch(sweep: Sweep, tmp_path: Path) -> None:
    pruner = "sweep.pruner={_target_: optuna.pruners.ThresholdPruner, lower: 2}"
    assert sweep("loop=fit,tape", pruner, "epochs=2") is None
    assert [(row["state"], row["epochs"]) for row in rows(tmp_path)] == [("PRUNED", "1")] * 2
    _, jobs = runs(tmp_path)
    assert [row["run_id"] for row in rows(tmp_path)] == [job.info.run_id for job in jobs]
    for job in jobs:
        assert job.info.status == "KILLED"
        value = job.data.metrics["val_accuracy"]
        assert job.data.tags["stopped"] == (f"pruned after epoch 1: val_accuracy {value:.4f} is behind the others")


@pytest.mark.parametrize(
    ("pruner", "rates", "loops"),
    [
        pytest.param("asha", "3e-2,3e-7", "fit,tape", marks=pytest.mark.long),
        pytest.param("hyperband", "3e-2,3e-7,2e-7,1e-7", "fit", marks=pytest.mark.long),
    ],
)
def test_named_pruners_stop_worse_jobs_early(sweep: Sweep, tmp_path: Path, pruner: str, rates: str, loops: str) -> None:
    overrides = [f"optimizer.learning_rate={rates}", f"loop={loops}", f"sweep.pruner={pruner}", "epochs=4"]
    assert sweep(*overrides) is None
    found = rows(tmp_path)
    pruned = [row for row in found if row["state"] == "PRUNED"]
    assert found[0]["state"] == "COMPLETE"
    assert pruned or pruner == "hyperband"  # its brackets depend on the id of the sweep, so it may prune none
    for row in pruned:
        assert float(row["optimizer.learning_rate"]) < 1e-6
        points = client(tmp_path).get_metric_history(row["run_id"], "val_accuracy")
        assert [point.step for point in points] == list(range(1, int(row["epochs"]) + 1))
        assert int(row["epochs"]) < 4


def test_reuse_takes_results_of_equal_runs(swept: Sweep, tmp_path: Path) -> None:
    first = folder(tmp_path)
    first.rename(tmp_path / "earlier")
    assert swept("seed=0,1,2", "sweep.reuse=true") is None
    found = rows(tmp_path)
    with (tmp_path / "earlier" / "summary" / "jobs.csv").open() as file:
        before = [row for row in csv.DictReader(file) if row["optimizer.learning_rate"] == "0.001"]
    assert [row["seed"] for row in before] == ["0", "1"]
    assert [row["run_id"] for row in found[:2]] == [row["run_id"] for row in before]
    assert [row["val_accuracy"] for row in found[:2]] == [row["val_accuracy"] for row in before]


def test_preview_lists_equal_runs_to_reuse(swept: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = [row["run_id"] for row in rows(tmp_path) if row["optimizer.learning_rate"] == "0.001"]
    (tmp_path / "multirun").rename(tmp_path / "earlier")
    capsys.readouterr()
    assert swept("seed=0,1,2", "sweep.reuse=true", "sweep.preview=true") is None
    shown = capsys.readouterr().out
    last = " ".join(shown.rpartition("┘")[2].split())
    assert [line.split("│")[3].strip() for line in shown.splitlines() if line.startswith("│")] == [
        f"equal to {done[0]}",
        f"equal to {done[1]}",
        "waits",
    ]
    assert last.startswith("3 jobs, 2 taken from equal runs unless the data have changed, 1 left, about 0:00:")
    assert swept("seed=0,1,2", "sweep.preview=true") is None
    assert swept("seed=0,1,2", "epochs=2", "sweep.reuse=true", "sweep.preview=true") is None
    assert "equal" not in capsys.readouterr().out


def test_several_workers_require_multiprocess_launcher(sweep: Sweep) -> None:
    assert sweep("seed=0,1", "sweep.workers=2") == (
        "error: sweep.workers=2 needs a launcher of several processes: expected hydra/launcher=joblib, ray or "
        "submitit, received basic. Add hydra/launcher=joblib (pip install hydra-joblib-launcher)."
    )


def test_planned_values_cannot_change_when_resuming(swept: Sweep) -> None:
    assert swept("sweep.resume=last", "epochs=9") == (
        "error: epochs=9 comes too late: the jobs of a sweep are planned when it starts. Expected with sweep.resume "
        "the original overrides, hydra/launcher, or a new value of storage, workers, preview, reuse, n_trials, "
        "max_retries, max_failures, job_timeout of sweep. Leave it out, or start a new sweep."
    )


def test_folder_of_existing_sweep_is_refused(swept: Sweep, tmp_path: Path) -> None:
    there = f"hydra.sweep.dir={folder(tmp_path).relative_to(tmp_path)}"
    assert swept("seed=0,1,2", there) == (
        f"error: {folder(tmp_path)} already contains a sweep: expected a new folder. "
        "Resume it with sweep.resume=last, or set hydra.sweep.dir to another one."
    )
    assert swept("sweep.resume=last", there) is None


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (
            ["sweep.sampler=tp"],
            "sweep.sampler=tp is unknown: expected one of grid, random, tpe, or one of optuna's as "
            "'sweep.sampler={_target_: optuna...}'. Did you mean 'tpe'?",
        ),
        (
            ["sweep.pruner=nothing"],
            "sweep.pruner=nothing is unknown: expected one of none, median, hyperband, asha, or one of optuna's as "
            "'sweep.pruner={_target_: optuna...}'.",
        ),
        (
            ["sweep.objectives={val_loss: minimum}"],
            "sweep.objectives.val_loss=minimum: expected min or max. Change it.",
        ),
        (
            ["sweep.sampler={_target_: optuna.samplers.CmaEsSampler}", "optimizer.learning_rate=interval(0.1,0.2)"],
            "sweep.sampler={'_target_': 'optuna.samplers.CmaEsSampler'} cannot be used: No module named "
            "'cmaes'. Change it, or install its dependencies.",
        ),
    ],
)
def test_unusable_sampler_pruner_or_objective_is_reported_before_first_job(
    command: Sweep, tmp_path: Path, overrides: list[str], error: str
) -> None:
    assert command("seed=0,1", *overrides) == f"error: {error}"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["modle=mlp,cnn"], "'modle' is not a key of this config. Did you mean 'model'?"),
        (
            ["optimizer.learning_rat=1,2"],
            "'optimizer.learning_rat' is not a key of this config. Did you mean 'optimizer.learning_rate'?",
        ),
        (["seed=1,a"], "seed=a: expected a whole number, received 'a'. Change seed."),
        (
            ["seed=1,2", "sweep.n_trials=0"],
            "sweep.n_trials=0 is out of range: expected 1 or more. Change sweep.n_trials.",
        ),
        (
            ["seed=1,2", "sweep.job_timeout=-1"],
            "sweep.job_timeout=-1.0 is out of range: expected a number above 0. Change sweep.job_timeout.",
        ),
        (
            ["seed=1,2", "sweep.exclude=[{sed: 1}]"],
            "sweep.exclude=[{'sed': 1}] names sed, which does not vary: expected seed. Did you mean 'seed'?",
        ),
        (
            ["seed=1,2,3,4", "sweep.exclude=[{seed: null}]"],
            "the rule {'seed': None} of sweep.exclude matches no job: expected seed=1, seed=2, seed=3 and 1 more, "
            "received {'seed': None}. Change it, or leave it out.",
        ),
        (
            ["seed=1,2", "sweep.exclude=[{seed: 1},{seed: 2}]"],
            "sweep.exclude leaves no job: expected one at least. Loosen its rules.",
        ),
        (
            ["seed=1,2", "sweep.repeats=2"],
            "sweep.repeats=2 sets the seeds of each combination: expected a single seed, the first. "
            "Leave out the others, or sweep.repeats.",
        ),
        (
            ["seed=interval(1,9)"],
            "seed=interval(...) has no grid: expected choices or a range. "
            "List values, or set sweep.sampler=random or tpe and sweep.n_trials.",
        ),
        (
            ["seed=1,2", "resume=last"],
            "resume=last resumes a single run, but -m starts a sweep: expected sweep.resume with -m. "
            "Leave it out, and set sweep.resume=last to resume a sweep.",
        ),
        (
            ["seed=1,2", "data.image_size=[9,9]"],
            "'data.image_size' is a key of data=cats_dogs, data=cats_dogs_synthetic, data=image_folder, which is not "
            "chosen here. Choose it, or leave the key out.",
        ),
        (
            ["seed=3,3"],
            "seed=3 would do the jobs of seed=3 again: expected different values. Leave one out.",
        ),
        (["seed=1,2", "hydra/launcher=jobli"], "hydra/launcher=jobli is not an option. Did you mean 'joblib'?"),
    ],
)
def test_invalid_overrides_are_reported_in_one_line(
    command: Sweep, tmp_path: Path, overrides: list[str], error: str
) -> None:
    assert command(*overrides) == f"error: {error}"
    assert list(tmp_path.iterdir()) == []


def test_resume_without_any_sweep_is_refused(sweep: Sweep) -> None:
    assert sweep("sweep.resume=last") == (
        "error: sweep.resume=last does not name a sweep: expected last or one of: none found. "
        "Name one of these, the path of its folder, or leave sweep.resume out. "
        "A sweep in a database needs sweep.storage."
    )


def test_unknown_sweep_of_worker_is_refused_with_its_own_key(command: Sweep) -> None:
    assert command("sweep.join=nothing") == (
        "error: sweep=nothing does not name a sweep: expected last or one of: none found. "
        "Name one of these or the path of its folder. A sweep in a database needs sweep.storage."
    )


def test_folder_of_sweep_killed_before_its_plan_takes_new_sweep(sweep: Sweep, tmp_path: Path) -> None:
    """Such a process has created the file of the queue, and perhaps the study in it."""
    for name, lines in (("created", 0), ("study", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / STUDY).write_text(
            '{"op_code":0,"worker_id":"w","study_name":"s","directions":[1]}\n' * lines
        )
        assert "does not name a sweep" in str(sweep("sweep.resume=last", f"hydra.sweep.dir={name}"))
        assert sweep("seed=1,2", f"hydra.sweep.dir={name}") is None
        assert str(sweep("seed=1,2", f"hydra.sweep.dir={name}")).endswith("or set hydra.sweep.dir to another one.")


def test_parent_run_of_sweep_killed_before_its_id_was_stored_is_found(swept: Sweep, tmp_path: Path) -> None:
    before, _ = runs(tmp_path)
    load_study(study_name=None, storage=storage(None, folder(tmp_path))).set_user_attr(PARENT, None)
    assert swept("sweep.resume=last") is None
    assert runs(tmp_path)[0].info.run_id == before.info.run_id


def test_last_sweep_of_another_project_is_not_taken(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert str(swept("sweep.resume=last", "hydra.sweep.dir=sweep_b")).startswith(
        "error: sweep.resume=last does not name a sweep: expected last or one of: none found."
    )
    folder(tmp_path).rename(tmp_path / "project" / "sweep_b")
    (tmp_path / "mlflow.db").rename(tmp_path / "project" / "mlflow.db")
    assert swept("sweep.resume=last", "hydra.sweep.dir=sweep_b") is None


def test_folder_of_job_cannot_be_named(command: Sweep, tmp_path: Path) -> None:
    assert command("seed=1,2", "hydra.sweep.subdir=job_${hydra.job.num}") == (
        "error: hydra.sweep.subdir=job_${hydra.job.num}: expected its default, as the folder of a job is its number. "
        "Leave it out, or set hydra.sweep.dir."
    )
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_count_from_folder_of_start(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("seed=1,2", "hydra.job.chdir=true") is None
    assert list(tmp_path.glob("**/mlflow.db")) == [tmp_path / "mlflow.db"]
    assert len(client(tmp_path).search_runs(["1"])) == 3


def test_unusable_database_is_reported_before_anything_is_written(command: Sweep, tmp_path: Path) -> None:
    for overrides in (["seed=1,2"], ["sweep.resume=last"]):
        error = str(command(*overrides, "sweep.storage=postgresql+nothing://127.0.0.1/x"))
        assert error.startswith("error: sweep.storage=postgresql+nothing://127.0.0.1/x cannot be used: ")
        assert "Expected the URL of a database that answers, with its driver installed." in error
        assert list(tmp_path.iterdir()) == []


def test_worker_is_refused_if_runs_are_in_a_file_of_another_machine(
    sweep: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database = f"sweep.storage=sqlite:///{tmp_path}/sweeps.db"
    assert sweep("seed=1", database) is None
    _, _, shown = capfd.readouterr().err.partition("More workers join with: experiments worker sweep=")
    identity = shown.split()[0]
    assert str(sweep(f"sweep.join={identity}", database)).startswith(
        "error: the runs of this sweep are in sqlite:///mlflow.db, a file of the machine that started it: expected the "
    )


def test_sweep_in_database_resumes_by_id_and_in_its_folder(sweep: Sweep, tmp_path: Path) -> None:
    database = f"sweep.storage=sqlite:///{tmp_path}/sweeps.db"
    create_study(storage=database.partition("=")[2], study_name="other").set_user_attr("plan", {"folder": ["x"]})
    assert str(sweep("optimizer.learning_rate=1e30,1e-3", database)).startswith("error: 1 job failed")
    (parent, (failed, _)), first = runs(tmp_path), folder(tmp_path)
    identity = parent.data.tags["sweep"]
    assert str(sweep("sweep.resume=nothing", database)).startswith(
        f"error: sweep.resume=nothing does not name a sweep: expected last or one of: other, {identity}."
    )
    for wanted, retries in (("last", 1), (identity, 2)):
        assert str(sweep(f"sweep.resume={wanted}", database, f"sweep.max_retries={retries}")).startswith("error: 1 job")
    assert folder(tmp_path) == first
    assert runs(tmp_path)[1][0].info.run_id == failed.info.run_id
    # A folder that the pattern of hydra.sweep.dir does not describe is not written to.
    assert str(sweep(f"sweep.resume={identity}", database, "hydra.sweep.dir=moved")).startswith("error: 1 job failed")
    assert (tmp_path / "moved" / "summary" / "jobs.csv").exists()
