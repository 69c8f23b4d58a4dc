"""Runs on the servers of a team: PostgreSQL, S3 and MLflow with accounts, as `make test-servers` installs them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from tests.postgres import initdb
from tests.servers.team import ADMIN, AWS, BUCKET, PASSWORD, Team, team

pytest.importorskip("boto3", reason="installed by make test-servers only")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(initdb() is None, reason="needs PostgreSQL: install the package postgresql"),
]
TINY = ("data=digits", "data.limit=400", "model=mlp", "progress=none", "logging.system_metrics=false")
WAIT_SECONDS = 180


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team(tmp_path_factory.mktemp("team")) as started, pytest.MonkeyPatch.context() as variables:
        for name, value in started.environment().items():
            variables.setenv(name, value)
        for user in ("ann", "bob"):
            started.administer("users/create", username=user, password=PASSWORD)
        yield started


class Member:
    """A user on a machine, which has a folder and a host name of its own."""

    def __init__(self, servers: Team, user: str, folder: Path) -> None:
        self.folder, self._host = folder, f"machine-of-{user}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
        self.environment = inherited | servers.environment(user)
        folder.mkdir(exist_ok=True)

    def start(self, *command: str) -> subprocess.Popen[str]:
        on_host = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', self._host]
        return subprocess.Popen(
            [*on_host, sys.executable, "-m", *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *command: str, status: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == status, output
        return output


def wait_for_epoch(client: MlflowClient, experiment: str, epoch: int, training: subprocess.Popen[str]) -> str:
    """Waits until the newest run of the experiment has `epoch` epochs and a checkpoint in the store; its id."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until and training.poll() is None:
        found = client.get_experiment_by_name(experiment)
        for run in client.search_runs([found.experiment_id], max_results=1) if found else []:
            run_id = str(run.info.run_id)
            points = client.get_metric_history(run_id, "loss")
            if len(points) >= epoch and client.list_artifacts(run_id, "checkpoints"):
                return run_id
        time.sleep(0.2)
    raise TimeoutError(f"no run of {experiment} has {epoch} epochs: {training.stdout and training.stdout.read()}")


def uninterrupted(servers: Team, folder: Path, *overrides: str) -> dict[str, float]:
    """Metrics of the same training without an interruption or a store."""
    member = Member(servers, "ann", folder)
    member.call("experiments.train", *TINY, *overrides, "logging.tracking_uri=sqlite:///own.db", "hydra.run.dir=out")
    header, *rows = (folder / "out" / "metrics.csv").read_text().splitlines()
    return dict(zip(header.split(","), map(float, rows[-1].split(",")), strict=True))


def test_stopped_run_is_resumed_by_a_colleague_on_another_machine(servers: Team, tmp_path: Path) -> None:
    overrides = ("epochs=400", "checkpoint.upload_every_n_minutes=0.05", "logging.experiment_name=shared")
    ann, bob = Member(servers, "ann", tmp_path / "a"), Member(servers, "bob", tmp_path / "b")
    client = MlflowClient(servers.uri)
    training = ann.start("experiments.train", *TINY, *overrides)
    run_id = wait_for_epoch(client, "shared", 3, training)
    training.send_signal(signal.SIGTERM)
    output, _ = training.communicate(timeout=WAIT_SECONDS)
    assert training.returncode == 128 + signal.SIGTERM, output
    assert client.get_run(run_id).info.status == "KILLED"
    shutil.rmtree(ann.folder)  # the machine is lost

    refused = bob.call("experiments.train", f"resume={run_id}", status=1)
    assert refused.splitlines()[-1].startswith("error:")
    assert "permission" in refused.lower()
    experiment = client.get_experiment_by_name("shared").experiment_id
    of_ann = {"resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
    servers.administer("users/permissions/grant", username="bob", version=3, **of_ann)
    bob.call("experiments.train", f"resume={run_id}")

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    expected = uninterrupted(servers, tmp_path / "c", "epochs=400")
    for name in ("loss", "val_loss", "val_accuracy"):
        points = client.get_metric_history(run_id, name)
        assert [point.step for point in points] == [*range(1, 401)]
        assert points[-1].value == expected[name]
    evaluated = bob.call("experiments.evaluate", f"run_id={run_id}", "format=csv")
    assert f"{run.data.metrics['best_val_accuracy']:.4f}" in evaluated
    assert run.data.tags["host"] == "machine-of-bob"
    carol = Member(servers, ADMIN, tmp_path / "d")  # has only the store
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "digit.png")
    predicted = [
        member.call("experiments.predict", f"run_id={run_id}", f"path={tmp_path}/digit.png", "format=csv")
        for member in (bob, carol)
    ]
    header, row = predicted[0].splitlines()[-2:]
    assert header == "path,class,probability"
    assert predicted[1].splitlines()[-2:] == [header, row]
    assert run_id in bob.call("experiments.compare", "logging.experiment_name=shared", "format=csv")
    assert "nothing" in bob.call("experiments.doctor").lower()


def test_wrong_password_is_named(servers: Team, tmp_path: Path) -> None:
    stranger = Member(servers, "ann", tmp_path)
    stranger.environment["MLFLOW_TRACKING_PASSWORD"] = "wrong"
    output = stranger.call("experiments.train", *TINY, "epochs=1", status=1)
    assert "MLFLOW_TRACKING_PASSWORD" in output.splitlines()[-1]
    assert "wrong" not in output


def test_artifacts_sent_directly_to_s3_arrive_after_its_outage(servers: Team, tmp_path: Path) -> None:
    overrides = ("epochs=400", "checkpoint.upload_every_n_minutes=0.05", "logging.experiment_name=direct")
    client, ann = MlflowClient(servers.uri), Member(servers, ADMIN, tmp_path)
    client.create_experiment("direct", f"s3://{BUCKET}/direct")
    training = ann.start("experiments.train", *TINY, *overrides)
    run_id = wait_for_epoch(client, "direct", 3, training)
    servers.objects.end()
    training.send_signal(signal.SIGTERM)
    output, _ = training.communicate(timeout=WAIT_SECONDS)
    assert training.returncode == 128 + signal.SIGTERM, output
    assert "doctor sync" in output
    servers.objects.start()
    ann.call("experiments.doctor", "sync")
    ann.call("experiments.train", f"resume={run_id}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [*range(1, 401)]
    assert {item.path for item in client.list_artifacts(run_id)} >= {"checkpoints", "config", "figures", "tensorboard"}
    assert client.search_logged_models([run.info.experiment_id])[0].status == "READY"


def test_missing_credentials_of_s3_are_named_before_training(servers: Team, tmp_path: Path) -> None:
    client, ann = MlflowClient(servers.uri), Member(servers, ADMIN, tmp_path)
    client.create_experiment("without credentials", f"s3://{BUCKET}/other")
    for name in AWS:
        ann.environment.pop(name, None)
    ann.environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    output = ann.call("experiments.train", *TINY, "epochs=1", "logging.experiment_name=without credentials", status=1)
    assert output.splitlines()[-1].startswith("error:")
    assert "credentials" in output.splitlines()[-1]
