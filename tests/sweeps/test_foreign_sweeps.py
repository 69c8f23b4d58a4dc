"""A sweep folder of another user is only data: resuming or previewing it executes nothing that it names."""

import json
import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.records.hostile import PLANTED, SECRET, Outcome, guarded
from tests.trainings import Trainings

from experiments.records.sweep_plan import PICKLED, STUDY
from experiments.sweeps.members import PARENT

pytestmark = pytest.mark.slow
TYPED = [
    *("data=digits", "data.limit=100", "model=mlp", "epochs=1", "progress=none", "logging.log_model=false"),
    *("logging.log_figures=false", "logging.system_metrics=false", "tensorboard.graph=false", "tensorboard.images=0"),
    "optimizer.learning_rate=0.01,0.001",
]
PREVIEW = "sweep.preview=true"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('planted')",)


def resume(trainings: Trainings, work: Path, *words: str) -> Outcome:
    """Resumes the sweep, and asserts that nothing was executed, sent, or written outside of `work`."""
    report = work / "report.txt"
    environment = {"MY_DB_PASSWORD": SECRET, "HOME": str(work), "TMPDIR": str(work), "EXPERIMENTS_CACHE": str(work)}
    arguments = ["-m", "hydra.sweep.dir=swept", *words]
    with trainings.calling(guarded, "train", arguments, str(work), str(report), environment=environment) as process:
        outcome = Outcome(process.wait(), process.stdout, process.stderr)
    shown = outcome.stdout + outcome.stderr
    events = report.read_text().splitlines() if report.exists() else []
    # A job asks git for the commit of the working folder.
    assert [event for event in events if not event.startswith("subprocess.Popen ('git'")] == [], shown
    assert not (work / "executed").exists(), shown
    assert SECRET not in shown
    assert "Traceback" not in shown, shown
    return outcome


@pytest.fixture(scope="module")
def finished(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Working folder of the author of a finished sweep."""
    work = tmp_path_factory.mktemp("author")
    shutil.copy(empty_store, work)
    done = trainings.run(work, "-m", *TYPED, "hydra.sweep.dir=swept", "sweep.max_failures=1")
    assert done.returncode == 0, done.stderr
    return work


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    """Working folder of a user who has received that of the author."""
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    (work / "planted.py").write_text(PLANTED)
    with closing(sqlite3.connect(work / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("tags", "value")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(finished), str(work)))
    return work


def change(study: Path, name: str, **values: Any) -> None:
    """Changes a user attribute of the study, or some values of the attribute `plan`."""
    lines = study.read_text().splitlines()
    for at, line in enumerate(lines):
        attribute = json.loads(line).get("user_attr", {})
        if name in attribute and "study_id" in json.loads(line):
            new = attribute[name] | values if name == "plan" else values["value"]
            lines[at] = json.dumps(json.loads(line) | {"user_attr": {name: new}}, separators=(",", ":"))
    study.write_text("\n".join(lines) + "\n")


def test_foreign_sweep_resumes(work: Path, trainings: Trainings) -> None:
    shown = resume(trainings, work, "sweep.resume=last", PREVIEW)
    assert shown.stdout.count("complete") == 2, shown.stderr
    study = work / "swept" / STUDY
    study.write_text(study.read_text().replace('"state":1', '"state":3'))  # a job failed
    resumed = resume(trainings, work, "sweep.resume=last")
    assert resumed.status == 0, resumed.stderr
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    assert [run.info.status for run in client.search_runs(["1"])] == ["FINISHED"] * 3


def test_hostile_sweep_folder_is_refused(work: Path, trainings: Trainings) -> None:
    study = work / "swept" / STUDY
    original = study.read_text()
    attributes = [json.loads(line).get("user_attr", {}) for line in original.splitlines()]
    typed = next(each["plan"]["typed"] for each in attributes if "plan" in each)
    shown = []

    def refusal(*words: str) -> str:
        outcome = resume(trainings, work, "sweep.resume=last", *words)
        assert outcome.status == 1, outcome
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        assert errors == outcome.stderr.splitlines()[-1:], outcome.stderr
        shown.append(errors[0])
        return errors[0]

    change(study, "plan", typed=[*typed, "+callbacks.a._target_=planted.run"])
    assert "callbacks.a._target_='planted.run', which is not a built-in component" in refusal(PREVIEW)
    assert "If you trust it, add allow_modules=[planted]." in refusal()
    change(study, "plan", typed=[*typed, "sweep.sampler={_target_: planted.run}"])
    assert "sweep.sampler._target_='planted.run', which is not a built-in component" in refusal()
    change(study, "plan", typed=[*typed, "logging.experiment_name='${oc.env:MY_DB_PASSWORD}'"])
    assert "which contains an interpolation" in refusal()
    study.write_bytes(pickle.dumps(Trap()))
    assert "does not name a sweep" in refusal(PREVIEW)
    study.unlink()
    (work / "swept" / PICKLED).write_bytes(pickle.dumps("0.2.0") + pickle.dumps(Trap()))
    assert "was planned by version 0.2 or older" in refusal(PREVIEW)
    assert "already contains a sweep" in resume(trainings, work, *TYPED).stderr
    (work / "swept" / PICKLED).unlink()
    study.write_text(original)
    change(study, PARENT, value="../../victim'; --")
    assert "the parent run in the queue of the sweep" in refusal()
    assert "cannot be used: " in shown[-1]
    assert "Invalid value" in shown[-1]
    change(study, "plan", id="other")
    assert "cannot be used: its plan is that of another sweep" in refusal(PREVIEW)
