"""The tracker behind a faulty network: training continues, and each event is delivered exactly once."""

import atexit
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer
from tests.tracking.faulty_proxy import Fault, FaultyProxy
from tests.trainings import Trainings

from experiments.data.base import DataSpec
from experiments.errors import TrackingError
from experiments.tracking.base import Upload
from experiments.tracking.journal import journal_file, undelivered
from experiments.tracking.liveness import signs_of_life
from experiments.tracking.mlflow_store import open_store
from experiments.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.slow
LARGE = os.urandom(300_000)


@pytest.fixture
def proxy(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    proxy = FaultyProxy(server.port)
    yield proxy
    proxy.close()


def tracker(uri: str, output_dir: Path, **changes: Any) -> MlflowTracker:
    settings: dict[str, Any] = {
        "tracking_uri": uri,
        "experiment_name": "faults",
        "run_name": "r",
        "tags": {},
        "flush_timeout": 60,
        "delivery_interval": 0.1,
        "system_metrics": False,
        "system_metrics_interval": 1,
        "output_dir": output_dir,
        "identity": signs_of_life(output_dir),
    }
    return MlflowTracker(**settings | changes)


def log(run: MlflowTracker, steps: range) -> None:
    for step in steps:
        run.log_metrics({"loss": step / 10, "accuracy": 1 - step / 10_000}, step=step)


def log_all(run: MlflowTracker, output_dir: Path) -> None:
    """Logs events of every kind, with a file that is larger than one packet."""
    folder = output_dir / "figures"
    folder.mkdir()
    (folder / "large").write_bytes(LARGE)
    run.log_params({"seed": "0"})
    log(run, range(100, 1500))
    run.set_tags({"cpu": "x"})
    run.log_dataset(DataSpec((8,), "uint8", 2, ("a", "b"), 3, "d" * 64, (1, 2), "/data/pets"), context="train")
    run.log_artifacts(Upload(folder, "figures"))
    log(run, range(1500, 1600))


def wait_until_delivered(folder: Path) -> None:
    wait_for(lambda: not undelivered(folder))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def journal_points(folder: Path, name: str) -> list[tuple[int, int, float]]:
    """Returns the (time, step, value) of a metric in the order of the journal."""
    events = [json.loads(line) for line in journal_file(folder).read_text().splitlines()]
    return [(each["time"], each["step"], each["values"][name]) for each in events if each["event"] == "metrics"]


def assert_complete(server: MlflowServer, run_id: str | None, folder: Path, status: str, tmp_path: Path) -> None:
    """Asserts that the server has each event of the journal exactly once, asking it without the proxy."""
    client = MlflowClient(server.uri)
    for name in ("loss", "accuracy"):
        found = [(each.timestamp, each.step, each.value) for each in client.get_metric_history(str(run_id), name)]
        assert found == journal_points(folder, name)
    run = client.get_run(str(run_id))
    assert run.info.status == status
    assert run.data.params == {"seed": "0"}
    assert run.data.tags["cpu"] == "x"
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["pets/train"]
    copy = client.download_artifacts(str(run_id), "figures", str(tmp_path))
    assert (Path(copy) / "large").read_bytes() == LARGE
    assert not (folder / "journal.rejected.jsonl").exists()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE], ids=lambda fault: fault.name)
def test_all_events_arrive_once_after_temporary_fault(
    server: MlflowServer, proxy: FaultyProxy, tmp_path: Path, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "urllib3")
    output_dir = tmp_path / "out"
    with tracker(proxy.uri, output_dir) as run:
        log(run, range(100))
        wait_until_delivered(output_dir)
        before = proxy.connections
        proxy.become(fault)
        began = time.monotonic()
        log_all(run, output_dir)
        assert time.monotonic() - began < 1, "training was blocked"
        wait_for(lambda: proxy.connections > before)
        time.sleep(0.5)
        proxy.become(Fault.NONE)
        log(run, range(1600, 1700))
    assert undelivered(output_dir) == 0
    assert caplog.text.count("training continues and events are kept in") <= 1
    assert_complete(server, run.run_id, output_dir, "FINISHED", tmp_path)


def test_hanging_server_is_an_error_within_ten_seconds(proxy: FaultyProxy) -> None:
    proxy.become(Fault.HANG)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"tracking server .* is not reachable: .* Start it, set logging"):
        open_store(proxy.uri)
    assert time.monotonic() - began < 12


def test_all_events_arrive_once_despite_changing_faults(
    server: MlflowServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    output_dir = tmp_path / "out"
    with tracker(proxy.uri, output_dir) as run:
        log(run, range(100))
        log_all(run, output_dir)
        for turn in range(20):
            proxy.become(list(Fault)[turn % len(Fault)])
            log(run, range(1600 + turn, 1601 + turn))
            time.sleep(0.15)
        proxy.become(Fault.NONE)
    assert_complete(server, run.run_id, output_dir, "FINISHED", tmp_path)


@pytest.mark.parametrize(
    "fault", [pytest.param(Fault.DROP, marks=pytest.mark.long), Fault.HANG], ids=lambda fault: fault.name
)
def test_events_left_by_unavailable_store_are_sent_by_doctor(
    trainings: Trainings,
    server: MlflowServer,
    proxy: FaultyProxy,
    tmp_path: Path,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output_dir = tmp_path / "a day's run"
    with tracker(proxy.uri, output_dir, flush_timeout=1) as run:
        log(run, range(100))
        wait_until_delivered(output_dir)
        proxy.become(fault)
        log_all(run, output_dir)
    left = undelivered(output_dir)
    assert left >= 1
    command = caplog.messages[-1].partition("To send them: ")[2]
    assert f"{left} events of run {run.run_id} are not delivered; kept in {output_dir}. To send" in caplog.messages[-1]
    assert MlflowClient(server.uri).get_run(str(run.run_id)).info.status == "RUNNING"
    time.sleep(2)  # the delivery thread of this process must end before another process delivers
    proxy.become(Fault.NONE)
    arguments = shlex.split(command.removeprefix("experiments doctor "))
    done = trainings.run(tmp_path, *arguments, door="doctor", store=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"run {run.run_id} is FINISHED" in done.stdout
    assert_complete(server, run.run_id, output_dir, "FINISHED", tmp_path)


def stop(uri: str, folder: str, go: str) -> None:
    """Runs until the file `go` exists, then ends as after a signal."""
    figures = Path(folder, "figures")
    figures.mkdir(parents=True)
    (figures / "large").write_bytes(bytes(300_000))
    try:
        with tracker(uri, Path(folder), system_metrics=True) as run:
            print(run.run_id, flush=True)
            while not Path(go).exists():
                time.sleep(0.005)
            run.log_metrics({"loss": 1.0}, step=1)
            run.log_artifacts(Upload(figures, "figures"))
            raise SystemExit(143)
    finally:
        print("closed", flush=True)
        _finish_interpreter()


def _finish_interpreter() -> None:
    """Waits for threads and runs the exit handlers, as Python does at its end; a forked process does neither."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


@pytest.mark.parametrize(
    "fault", [Fault.HANG, pytest.param(Fault.CUT_ANSWER, marks=pytest.mark.long)], ids=lambda fault: fault.name
)
def test_stopped_run_exits_within_ten_seconds_if_store_hangs(
    trainings: Trainings, server: MlflowServer, proxy: FaultyProxy, tmp_path: Path, fault: Fault
) -> None:
    """Schedulers kill a process ten seconds after the stop signal. `doctor` delivers the rest later."""
    go, changes = tmp_path / "go", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    with trainings.calling(stop, proxy.uri, str(tmp_path / "out"), str(go), environment=changes) as process:
        process.wait_for("\n")
        run_id = process.stdout.strip()
        wait_until_delivered(tmp_path / "out")
        proxy.become(fault)
        began = time.monotonic()
        go.touch()
        process.wait_for("closed\n")
        closed = time.monotonic() - began
        assert process.wait() == 143
        exited = time.monotonic() - began
    print(f"{fault.name}: closed after {closed:.1f} s, exited after {exited:.1f} s")
    assert closed < 6
    assert exited < 10
    proxy.become(Fault.NONE)
    overrides = ["sync", f"folders=['{tmp_path}']", f"logging.tracking_uri={proxy.uri}"]
    done = trainings.run(tmp_path, *overrides, door="doctor", store=False)
    assert (done.returncode, done.stderr) == (0, "")
    client = MlflowClient(server.uri)
    assert client.get_run(run_id).info.status == "KILLED"
    assert [(each.step, each.value) for each in client.get_metric_history(run_id, "loss")] == [(1, 1.0)]
    assert [each.path for each in client.list_artifacts(run_id, "figures")] == ["figures/large"]
