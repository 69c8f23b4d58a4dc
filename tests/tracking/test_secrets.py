"""Secrets in every input of a run and of a sweep occur in no file, table, artifact or output of them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer
from tests.trainings import Trainings

from experiments.cli.entry import run_command
from experiments.train import main

pytestmark = pytest.mark.slow
PLACES = (
    *("address", "tag", "note", "run-name", "experiment", "override", "nested", "environment", "data-url", "diff"),
    *("remote", "exception", "server", "header", "swept-a", "swept-b", "typed", "typed-address", "number"),
)
SECRETS = {place: f"hunter2Geheim{number:02}{place.replace('-', 'X')}" for number, place in enumerate(PLACES)}
ENVIRONMENT = {
    "RUN_TOKEN": SECRETS["run-name"],
    "EXPERIMENT_SECRET": SECRETS["experiment"],
    "DB_PASSWORD": SECRETS["environment"],
    "FIRST_TOKEN": SECRETS["swept-a"],
    "SECOND_TOKEN": SECRETS["swept-b"],
    "MESSAGE": f"login failed: password={SECRETS['exception']}",
    "HYDRA_FULL_ERROR": "0",
}
INPUTS = ("notes.py", "mnist.npz", "failing.py")
FAILING = '''
import os
import keras


class Failing(keras.callbacks.Callback):
    """Fails with the secrets that it knows, as a client of a database might."""

    def __init__(self, db_password, neutral, options=None):
        super().__init__()
        self.values = [db_password, neutral, *(options or {}).values()]

    def on_epoch_end(self, epoch, logs=None):
        if self.values[0] != os.environ["FIRST_TOKEN"]:
            raise RuntimeError(f"{os.environ['MESSAGE']} {self.values}")
'''
SMALL = (
    *("data=mnist", "data.path=mnist.npz", "data.validation_fraction=0.5", "model=mlp", "epochs=1", "progress=plain"),
    *("logging.log_figures=false", "logging.log_model=false", "tensorboard.images=0"),
    f"data.sha256={'0' * 64}",
)
ADDRESSES = (f"data.url='http://reader:{SECRETS['data-url']}@127.0.0.1:9/mnist.npz?sig={SECRETS['number']}'",)
FROM_ENVIRONMENT = (
    "logging.run_name=run-${oc.env:RUN_TOKEN}",
    "logging.experiment_name=experiment-${oc.env:EXPERIMENT_SECRET}",
    "+callbacks.failing._target_=failing.Failing",
    "+callbacks.failing.neutral=${oc.env:DB_PASSWORD}",
)
LITERAL = (
    f"+callbacks.failing.db_password={SECRETS['override']}",
    f"+callbacks.failing.options={{api_key:{SECRETS['nested']}}}",
    f"+logging.tags.kaggle_key={SECRETS['tag']}",
    f"+logging.tags.note='Authorization: Bearer {SECRETS['note']}'",
)


def command(folder: str, arguments: Sequence[str]) -> None:
    """Runs the training command as `python -m experiments.train` does."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv, sys.orig_argv = ["train", *arguments], [sys.executable, "-m", "experiments.train", *arguments]
    run_command(main, "config")


def train(
    trainings: Trainings, folder: Path, *arguments: str, environment: Mapping[str, str] = ENVIRONMENT
) -> tuple[int, str]:
    """Returns the exit status and the output."""
    with trainings.calling(command, str(folder), arguments, environment={**ENVIRONMENT, **environment}) as started:
        status = started.wait()
        return status, started.stdout + started.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Git repository with uncommitted changes, a small data set and a callback that fails."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "mnist.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "notes.py").write_text("api_key = None\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@example.com"]
    remote = f"https://me:{SECRETS['remote']}@example.com/me.git"
    for arguments in (["init", "-q"], ["add", "notes.py"], ["commit", "-qm", "x"], ["remote", "add", "origin", remote]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "notes.py").write_text(f'api_key = "{SECRETS["diff"]}"\n')
    return tmp_path


def leaks(*folders: Path) -> list[str]:
    """Returns the files that contain a secret: databases, artifacts, logs and all others, except the inputs."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.name in INPUTS or ".git" in path.parts or "__pycache__" in path.parts:
            continue
        content = path.read_bytes()
        found += [f"{path}: {place}" for place, secret in SECRETS.items() if secret.encode() in content]
    return found


def leaks_in(text: str) -> list[str]:
    return [place for place, secret in SECRETS.items() if secret in text]


def test_secrets_of_a_failed_run_are_masked_everywhere(
    trainings: Trainings, server: MlflowServer, project: Path
) -> None:
    address = f"logging.tracking_uri=http://writer:{SECRETS['address']}@127.0.0.1:{server.port}"
    status, output = train(trainings, project, *SMALL, *ADDRESSES, *FROM_ENVIRONMENT, *LITERAL, address)
    assert status == 1, output
    assert "login failed: password=***" in output
    assert leaks_in(output) == [], output
    assert leaks(project, server.folder) == []

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("experiment-***")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run-***"
    assert run.data.tags["kaggle_key"] == run.data.params["callbacks.failing.db_password"] == "***"
    assert run.data.tags["note"] == "Authorization: ***"
    assert "RuntimeError: login failed: password=***" in run.data.tags["error"]
    config = next(project.glob("outputs/*/*/config"))
    assert "+api_key = ***" in (config / "git.diff").read_text()
    assert "+callbacks.failing.neutral=${oc.env:DB_PASSWORD}" in (config / "overrides.yaml").read_text()
    modes = {name: (config / name).stat().st_mode & 0o777 for name in ("config.yaml", "overrides.yaml", "data.json")}
    assert set(modes.values()) == {0o600}
    assert list(project.rglob(".hydra")) == []


def test_secrets_of_a_sweep_are_masked_everywhere(trainings: Trainings, server: MlflowServer, project: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": f"http://writer:{SECRETS['address']}@127.0.0.1:{server.port}"}
    swept = "+callbacks.failing.db_password=${oc.env:FIRST_TOKEN},${oc.env:SECOND_TOKEN}"
    words = [*SMALL, *FROM_ENVIRONMENT, "sweep.max_retries=0"]
    status, preview = train(trainings, project, "-m", *words, swept, "sweep.preview=true", environment=environment)
    assert status == 0, preview
    status, output = train(trainings, project, "-m", *words, swept, environment=environment)
    assert status == 1, output
    assert "1 job failed" in output
    assert leaks_in(preview + output) == []
    assert leaks(project, server.folder) == []

    (folder,) = {path.parent for path in project.glob("multirun/*/*/study.journal")}
    with (folder / "summary" / "jobs.csv").open() as file:
        values = {row["+callbacks.failing.db_password"]: row for row in csv.DictReader(file)}
    assert list(values) == ["${oc.env:FIRST_TOKEN}", "${oc.env:SECOND_TOKEN}"]
    assert "password=***" in values["${oc.env:SECOND_TOKEN}"]["error"]
    assert (folder / "study.journal").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (f"+callbacks.failing.db_password=a,{SECRETS['typed']}", "+callbacks.failing.db_password=***"),
        (f"+logging.tags.api_key={SECRETS['typed']}", "+logging.tags.api_key=***"),
        (
            f"logging.tracking_uri=http://me:{SECRETS['typed-address']}@127.0.0.1:9",
            "logging.tracking_uri=http://me:***@127.0.0.1:9",
        ),
    ],
)
def test_secret_typed_in_a_sweep_is_refused(trainings: Trainings, project: Path, typed: str, shown: str) -> None:
    status, output = train(trainings, project, "-m", *SMALL, "seed=0,1", typed)
    key = typed.partition("=")[0]
    assert (status, output) == (
        1,
        f"error: {shown} contains a secret, which a sweep would have to store in its files: expected the name of an "
        f"environment variable, received its value. Export it, and write '{key}=${{oc.env:NAME}}'.\n",
    )
    assert leaks(project) == []
    assert not (project / "multirun").exists()


class Refusing(BaseHTTPRequestHandler):
    """A server whose answers contain secrets, and sequences that control a terminal."""

    def do_POST(self) -> None:
        message = f"\x1b[31mdenied\u202e for token={SECRETS['server']} and {self.headers['Authorization']}"
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": message}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Logs nothing."""


@contextmanager
def refusing() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_answer_of_a_server_is_masked_and_escaped(trainings: Trainings, project: Path) -> None:
    with refusing() as port:
        words = [f"logging.tracking_uri=http://me:{SECRETS['header']}@127.0.0.1:{port}"]
        status, output = train(trainings, project, *SMALL, *words)
        missing = [*SMALL, "logging=none", f"data.url=http://me:{SECRETS['data-url']}@127.0.0.1:{port}/x"]
        missing += ["data.path=missing.npz"]
        download = train(trainings, project, *missing)
    assert status == 1
    assert r"\x1b[31mdenied\u202e for token=***" in output
    assert download[0] == 1
    assert "\nerror: http://me:***@127.0.0.1:" in download[1]
    assert leaks_in(output + download[1]) == []
    assert leaks(project) == []
