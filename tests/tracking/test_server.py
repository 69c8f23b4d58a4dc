"""The tracker against a real MLflow server that comes and goes, and against processes that are killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer

from experiments.tracking.base import Upload
from experiments.tracking.journal import deliver, first_event, undelivered
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.slow

SETTINGS = """
from pathlib import Path
from experiments.tracking.mlflow_tracker import MlflowTracker
settings = dict(experiment_name="x", run_name="r", tags={}, flush_timeout=60, delivery_interval=INTERVAL,
                system_metrics=False, system_metrics_interval=1)
"""


def _tracker(uri: str, output_dir: Path, *, flush_timeout: float = 60) -> MlflowTracker:
    return MlflowTracker(
        tracking_uri=uri,
        experiment_name="server",
        run_name="r",
        tags={},
        flush_timeout=flush_timeout,
        delivery_interval=0.2,
        system_metrics=False,
        system_metrics_interval=1,
        output_dir=output_dir,
    )


def _steps(uri: str, run_id: str | None) -> list[int]:
    return [metric.step for metric in MlflowClient(uri).get_metric_history(str(run_id), "loss")]


def _log(run: MlflowTracker, steps: range) -> None:
    for step in steps:
        run.log_metrics({"loss": step / 10}, step=step)


def _wait_until_delivered(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while undelivered(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_is_killed_and_comes_back_gets_everything_once(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "ä b.txt").write_text("figure")
    with _tracker(server.uri, tmp_path) as run:
        _log(run, range(100))
        _wait_until_delivered(tmp_path)
        server.kill()
        _log(run, range(100, 2200))
        run.log_artifacts(Upload(tmp_path / "figures", "figures"))
        time.sleep(1)
        assert undelivered(tmp_path) == 2101
        server.start()
        _log(run, range(2200, 2300))
    assert "://" not in capfd.readouterr().out
    assert undelivered(tmp_path) == 0
    assert _steps(server.uri, run.run_id) == list(range(2300))
    client = MlflowClient(server.uri)
    assert client.get_run(str(run.run_id)).info.status == "FINISHED"
    assert [found.path for found in client.list_artifacts(str(run.run_id), "figures")] == ["figures/ä b.txt"]


def test_what_a_killed_process_wrote_is_delivered_later(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    script = SETTINGS.replace("INTERVAL", "3600") + (
        f"with MlflowTracker(tracking_uri={uri!r}, output_dir=Path({str(tmp_path)!r}) / 'out', **settings) as run:\n"
        "    for step in range(1000): run.log_metrics({'loss': step / 10}, step=step)\n"
        "    print('written', flush=True)\n"
        "    import time; time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    started = first_event(tmp_path / "out")
    assert started is not None
    deliver(tmp_path / "out", MlflowSink(MlflowClient(uri), started["run_id"]))
    assert _steps(uri, started["run_id"]) == list(range(1000))


def test_six_processes_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    script = SETTINGS.replace("INTERVAL", "1") + (
        "import os, sys\n"
        "number = next((number for number in range(6) if not os.fork()), None)\n"  # MLflow is imported once
        "if number is None:\n"
        "    sys.exit(any([os.wait()[1] for _ in range(6)]))\n"
        f"settings |= dict(tracking_uri='sqlite:///{tmp_path}/m.db', output_dir=Path('{tmp_path}', str(number)))\n"
        "with MlflowTracker(**settings) as run:\n"
        "    run.log_metrics({'loss': 1.0}, step=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    experiment = client.get_experiment_by_name("x")
    runs = client.search_runs([experiment.experiment_id])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("FINISHED", {"loss": 1.0})] * 6
