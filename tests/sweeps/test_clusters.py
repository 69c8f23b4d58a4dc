"""Sweeps on existing clusters of two nodes: Ray and SLURM, run by `make test-launchers`."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.sweeps.clusters import has_slurm, ray_cluster, slurm_cluster

pytestmark = pytest.mark.long
pytest.importorskip("ray", reason="installed by make test-launchers only")
needs_slurm = pytest.mark.skipif(
    not has_slurm(), reason="needs root and Debian's slurmctld, slurmd, slurm-client and munge"
)
TINY = [
    *("data=digits", "data.limit=100", "model=mlp", "epochs=1", "progress=none", "tensorboard.graph=false"),
    *("logging.log_model=false", "logging.log_figures=false", "logging.system_metrics=false"),
]
SWEEP = ["-m", *TINY, "seed=0,1,2,3", "sweep.workers=2", "hydra.sweep.dir=swept"]
SCRIPT = """#!/bin/bash
#SBATCH --time=00:10:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
exec {python} -m experiments.train {overrides} resume=last
"""
"""The script of docs/guides/resume.md. A resumed run continues in the same store, so `last` is the run of this job."""


def train(folder: Path, *typed: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "experiments.train", *typed]
    return subprocess.run(
        command, cwd=folder, env={**inherited, **variables}, capture_output=True, text=True, check=False
    )


def finished(folder: Path) -> list[str]:
    """States of the jobs in the summary, after a check that the store has as many finished runs."""
    with (folder / "swept" / "summary" / "jobs.csv").open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    runs = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"])
    assert [run.info.status for run in runs] == ["FINISHED"] * (len(states) + 1)
    return states


def test_sweep_runs_on_an_existing_ray_cluster(tmp_path: Path) -> None:
    with ray_cluster(tmp_path) as variables:
        done = train(tmp_path, *SWEEP, "hydra/launcher=ray", **variables)
    assert done.returncode == 0, done.stderr
    assert finished(tmp_path) == ["COMPLETE"] * 4


@needs_slurm
def test_sweep_runs_on_two_nodes_of_slurm(tmp_path: Path) -> None:
    queue = ("hydra.launcher.partition=main", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1")
    with slurm_cluster(tmp_path) as variables:
        done = train(tmp_path, *SWEEP, "hydra/launcher=submitit", *queue, **variables)
    assert done.returncode == 0, done.stderr
    assert finished(tmp_path) == ["COMPLETE"] * 4


@needs_slurm
def test_requeued_job_of_slurm_continues_its_run(tmp_path: Path) -> None:
    typed = [*TINY[:3], "epochs=100000", *TINY[4:]]
    (tmp_path / "job.sh").write_text(SCRIPT.format(python=sys.executable, overrides=" ".join(typed)))
    with slurm_cluster(tmp_path) as variables:
        environment = {**os.environ, **variables}

        def slurm(*command: str) -> str:
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
            )
            return done.stdout.strip()

        job = slurm("sbatch", "--parsable", "--output=job.log", "job.sh")
        first = wait_for_epochs(tmp_path, 2)
        slurm("scancel", "--batch", "--signal=USR1", job)
        wait_until(lambda: status(tmp_path) == ["KILLED"], tmp_path)
        before = epochs(tmp_path, first)
        job = slurm("sbatch", "--parsable", "--output=job.log", "job.sh")
        assert wait_for_epochs(tmp_path, before + 2) == first
        slurm("scontrol", "requeue", job)
        assert wait_for_epochs(tmp_path, epochs(tmp_path, first) + 2) == first
        slurm("scancel", job)


def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def ids(folder: Path) -> list[str]:
    return [run.info.run_id for run in client(folder).search_runs(["1"])]


def status(folder: Path) -> list[str]:
    return [run.info.status for run in client(folder).search_runs(["1"])]


def epochs(folder: Path, run_id: str) -> int:
    return len({point.step for point in client(folder).get_metric_history(run_id, "loss")})


def wait_for_epochs(folder: Path, count: int) -> str:
    """Waits until the only run of the store has `count` epochs, and returns its id."""
    wait_until(lambda: any(epochs(folder, run_id) >= count for run_id in ids(folder)), folder)
    (run_id,) = ids(folder)
    return run_id


def wait_until(holds: Callable[[], bool], folder: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if (folder / "mlflow.db").exists() and holds():
            return
        time.sleep(0.5)
    raise TimeoutError((folder / "job.log").read_text())
