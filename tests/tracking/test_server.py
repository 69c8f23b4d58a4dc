"""The tracker with a real MLflow server that is restarted, and in processes that are killed."""

import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer
from tests.trainings import Trainings

from experiments.tracking.base import Upload
from experiments.tracking.journal import deliver, first_event, undelivered
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.slow


def _tracker(uri: str, output_dir: Path, *, delivery_interval: float = 0.2) -> MlflowTracker:
    return MlflowTracker(
        tracking_uri=uri,
        experiment_name="server",
        run_name="r",
        tags={},
        flush_timeout=60,
        delivery_interval=delivery_interval,
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


def test_all_events_arrive_once_after_server_restart(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
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
    assert caplog.text.count("The tracking store is unavailable; training continues and events are kept in") == 1
    assert undelivered(tmp_path) == 0
    assert _steps(server.uri, run.run_id) == list(range(2300))
    client = MlflowClient(server.uri)
    assert client.get_run(str(run.run_id)).info.status == "FINISHED"
    assert [found.path for found in client.list_artifacts(str(run.run_id), "figures")] == ["figures/ä b.txt"]


def write(uri: str, folder: str) -> None:
    """Writes 1000 steps, then waits. The long interval prevents a second delivery."""
    with _tracker(uri, Path(folder), delivery_interval=3600) as run:
        _log(run, range(1000))
        print("written", flush=True)
        time.sleep(600)


def test_events_of_killed_process_are_delivered_later(trainings: Trainings, empty_store: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    with trainings.calling(write, uri, str(tmp_path / "out")) as process:
        process.wait_for("written")
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    started = first_event(tmp_path / "out")
    assert started is not None
    deliver(tmp_path / "out", MlflowSink(MlflowClient(uri), started["run_id"]))
    assert _steps(uri, started["run_id"]) == list(range(1000))


def log_one_step(uri: str, folder: str) -> None:
    with _tracker(uri, Path(folder)) as run:
        _log(run, range(1, 2))


def test_six_processes_create_one_store_concurrently(trainings: Trainings, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    with ExitStack() as processes:
        started = [
            processes.enter_context(trainings.calling(log_one_step, uri, str(tmp_path / str(number))))
            for number in range(6)
        ]
        assert [each.wait() for each in started] == [0] * 6, "".join(each.stderr for each in started)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("server")
    runs = client.search_runs([experiment.experiment_id])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("FINISHED", {"loss": 0.1})] * 6
