"""A training that is asked to stop while its tracking server hangs: gone in time, and told to the store later."""

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
WORDS = [
    *("data=digits", "model=mlp", "epochs=100000", "progress=none", "hydra.run.dir=outputs"),
    *("checkpoint.upload_every_n_minutes=1e-9", "logging.delivery_interval=0.5"),
]
CLOSE_SECONDS = 6
"""From the signal to all being on disk and said."""
GRACE_SECONDS = 30
"""Until a scheduler kills. What is left to do is Python's own end, which has taken 1 to 5 s by the load."""


def test_a_training_that_is_stopped_while_the_store_hangs(
    trainings: Trainings, server: MlflowServer, tmp_path: Path
) -> None:
    proxy = FaultyProxy(server.port)
    command = [sys.executable, "-m", "experiments.train", *WORDS, f"logging.tracking_uri={proxy.uri}"]
    with (tmp_path / "output.txt").open("wb") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said, env=os.environ)
    _wait_for_steps(tmp_path / "outputs")
    before = proxy.connections
    proxy.become(Fault.HANG)
    _wait(lambda: proxy.connections > before)  # a delivery is under way, and hangs
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while b"python -m experiments.doctor sync" not in (tmp_path / "output.txt").read_bytes():
        assert time.monotonic() - began < GRACE_SECONDS
        time.sleep(0.05)
    closed = time.monotonic() - began
    assert process.wait(60) == 128 + signal.SIGTERM
    gone = time.monotonic() - began
    print(f"closed after {closed:.1f} s, gone after {gone:.1f} s")
    assert closed < CLOSE_SECONDS
    assert gone < GRACE_SECONDS
    proxy.become(Fault.NONE)
    done = trainings.run(tmp_path, "sync", "folders=[outputs]", door="doctor")
    assert (done.returncode, done.stderr) == (0, "")
    proxy.close()
    client = MlflowClient(server.uri)
    run_id = done.stdout.partition("run ")[2].split()[0]
    assert client.get_run(run_id).info.status == "KILLED"
    points = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert points == list(range(1, len(points) + 1))


def _wait_for_steps(folder: Path) -> None:
    _wait(lambda: journal_file(folder).exists() and b'"val_loss"' in journal_file(folder).read_bytes())


def _wait(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
