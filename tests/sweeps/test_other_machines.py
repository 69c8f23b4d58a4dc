"""Sweeps on machines that share no disk: the plan and the queue are in PostgreSQL, the runs on an MLflow server."""

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.mlflow_server import MlflowServer
from tests.postgres import postgres
from tests.trainings import Trainings, assert_same_bits, output

pytestmark = [pytest.mark.servers, pytest.mark.long]
TINY = [
    *("-m", "data=digits", "data.limit=200", "model=mlp", "model.dropout=0.2", "progress=none"),
    *("checkpoint.every_epoch=true", "checkpoint.upload_every_n_minutes=1e-9", "logging.log_model=false"),
    *("logging.log_figures=false", "tensorboard.graph=false", "logging.system_metrics=false", "hydra.sweep.dir=swept"),
]
UPLOADED = {"call": "experiments.checkpoints.uploads.stage", "number": 2, "when": "after"}
"""The second upload is staged after the store has received the first."""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


def jobs_of(server: MlflowServer, experiment: str) -> list[Run]:
    client = MlflowClient(server.uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return sorted((run for run in found if "sweep.job" in run.data.tags), key=lambda run: run.data.tags["sweep.job"])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "swept" / "summary" / "jobs.csv").open() as file:
        return list(csv.DictReader(file))


def test_sweep_of_lost_machine_resumes_on_other_machine(
    trainings: Trainings, server: MlflowServer, database: str, tmp_path: Path
) -> None:
    lost, other, whole = (tmp_path / name for name in ("lost", "other", "whole"))
    shared = [f"logging.tracking_uri={server.uri}", f"sweep.storage={database}"]
    seeds = ["seed=1,2", "epochs=4"]
    assert trainings.train(whole, *TINY, *seeds, *shared, "logging.experiment_name=whole") == 0, output(whole)
    overrides = [*TINY, *seeds, *shared, "logging.experiment_name=lost_sweep"]
    assert trainings.train(lost, *overrides, fault=UPLOADED) == -9, output(lost)
    shutil.rmtree(lost)
    identity = jobs_of(server, "lost_sweep")[0].data.tags["sweep"]
    assert trainings.train(other, "-m", "sweep.resume=nothing", shared[1]) == 1
    assert identity in output(other)
    resume = ["-m", f"sweep.resume={identity}", *shared, "hydra.sweep.dir=swept"]
    assert trainings.train(other, *resume) == 0, output(other)
    assert [row["state"] for row in rows(other)] == ["COMPLETE"] * 2
    runs = jobs_of(server, "lost_sweep")
    assert [(run.data.tags["sweep.job"], run.info.status) for run in runs] == [("0", "FINISHED"), ("1", "FINISHED")]
    # Uploads that wait are sent as one, so the second one may be that of the second job.
    resumed = [number for number in "01" if (other / "swept" / number).exists()]
    assert resumed[-1] == "1"
    for number in resumed:
        assert_same_bits(other / "swept" / number / "checkpoints", whole / "swept" / number / "checkpoints")


def test_worker_joins_from_other_machine(
    trainings: Trainings, server: MlflowServer, database: str, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    shared = [f"logging.tracking_uri={server.uri}", f"sweep.storage={database}"]
    overrides = [*TINY, "seed=range(8)", "epochs=20", *shared, "logging.experiment_name=joined"]
    with trainings.started(one, *overrides, store=False) as sweep:
        sweep.wait_for("job 1 of 8")
        while not (begun := jobs_of(server, "joined")) and sweep.goes_on():
            time.sleep(0.1)
        identity = begun[0].data.tags["sweep"]
        joined = trainings.run(other, "worker", f"sweep={identity}", *shared, door="__main__", store=False)
        assert joined.returncode == 0, joined.stderr
        assert sweep.wait() == 0, sweep.stderr
    assert [row["state"] for row in rows(one)] == ["COMPLETE"] * 8
    here, there = ({path.name for path in folder.glob("**/swept/[0-7]")} for folder in (one, other))
    there |= {path.name for path in other.glob("multirun/*/*/[0-7]")}
    assert here | there == set("01234567")
    assert here
    assert there
    assert not here & there
