"""Stop of a training while its tracking server hangs: it ends in time, and its events are delivered later."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer
from tests.tracking.faulty_proxy import Fault, FaultyProxy
from tests.trainings import Trainings

from experiments.tracking.journal import journal_file

pytestmark = pytest.mark.slow
OVERRIDES = [
    *("data=digits", "model=mlp", "epochs=100000", "progress=none", "hydra.run.dir=outputs"),
    *("checkpoint.upload_every_n_minutes=1e-9", "logging.delivery_interval=0.5"),
]
CLOSE_SECONDS = 6
"""Limit from the signal until everything is on disk and the last message is printed."""
GRACE_SECONDS = 30
"""Limit until a scheduler kills the process. Python's own exit takes 1 to 5 s of it, depending on the load."""


def test_stopped_training_ends_in_time_while_server_hangs(
    trainings: Trainings, server: MlflowServer, tmp_path: Path
) -> None:
    proxy = FaultyProxy(server.port)
    command = [sys.executable, "-m", "experiments.train", *OVERRIDES, f"logging.tracking_uri={proxy.uri}"]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=os.environ)
    _wait_for_steps(tmp_path / "outputs")
    before = proxy.connections
    proxy.become(Fault.HANG)
    _wait(lambda: proxy.connections > before)  # a delivery has started and hangs
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while b"experiments doctor sync" not in (tmp_path / "output.txt").read_bytes():
        assert time.monotonic() - began < GRACE_SECONDS
        time.sleep(0.05)
    closed = time.monotonic() - began
    assert process.wait(60) == 128 + signal.SIGTERM
    ended = time.monotonic() - began
    print(f"closed after {closed:.1f} s, ended after {ended:.1f} s")
    assert closed < CLOSE_SECONDS
    assert ended < GRACE_SECONDS
    proxy.become(Fault.NONE)
    done = trainings.run(tmp_path, "sync", "folders=[outputs]", f"logging.tracking_uri={proxy.uri}", door="doctor")
    assert (done.returncode, done.stderr) == (0, "")
    proxy.close()
    client = MlflowClient(server.uri)
    run_id = done.stdout.partition("run ")[2].split()[0]
    assert client.get_run(run_id).info.status == "KILLED"
    points = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert points == list(range(1, len(points) + 1))


def _wait_for_steps(folder: Path) -> None:
    _wait(lambda: journal_file(folder).exists() and b'"val_loss"' in journal_file(folder).read_bytes())


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
