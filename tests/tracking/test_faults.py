"""The tracker behind a network that fails in every way: training goes on, nothing is lost, nothing is doubled."""

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
from experiments.tracking.base import Upload
from experiments.tracking.journal import journal_file, undelivered
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
    }
    return MlflowTracker(**settings | changes)


def log(run: MlflowTracker, steps: range) -> None:
    for step in steps:
        run.log_metrics({"loss": step / 10, "accuracy": 1 - step / 10_000}, step=step)


def log_all(run: MlflowTracker, output_dir: Path) -> None:
    """One event of each sort, with a file that takes more than one packet."""
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


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(folder: Path, name: str) -> list[tuple[int, int, float]]:
    """(time, step, value) of a metric, in the order of the journal."""
    events = [json.loads(line) for line in journal_file(folder).read_text().splitlines()]
    return [(each["time"], each["step"], each["values"][name]) for each in events if each["event"] == "metrics"]


def assert_whole(server: MlflowServer, run_id: str | None, folder: Path, status: str, tmp_path: Path) -> None:
    """The server has what the journal says, each once, past every proxy."""
    client = MlflowClient(server.uri)
    for name in ("loss", "accuracy"):
        found = [(each.timestamp, each.step, each.value) for each in client.get_metric_history(str(run_id), name)]
        assert found == said(folder, name)
    run = client.get_run(str(run_id))
    assert run.info.status == status
    assert run.data.params == {"seed": "0"}
    assert run.data.tags["cpu"] == "x"
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["pets/train"]
    copy = client.download_artifacts(str(run_id), "figures", str(tmp_path))
    assert (Path(copy) / "large").read_bytes() == LARGE
    assert not (folder / "journal.rejected.jsonl").exists()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE], ids=lambda fault: fault.name)
def test_a_fault_that_passes(
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
        assert time.monotonic() - began < 1, "training waited"
        wait_for(lambda: proxy.connections > before)
        time.sleep(0.5)
        proxy.become(Fault.NONE)
        log(run, range(1600, 1700))
    assert undelivered(output_dir) == 0
    assert_whole(server, run.run_id, output_dir, "FINISHED", tmp_path)


def test_a_network_that_changes_its_mind_all_the_time(server: MlflowServer, proxy: FaultyProxy, tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    with tracker(proxy.uri, output_dir) as run:
        log(run, range(100))
        log_all(run, output_dir)
        for turn in range(20):
            proxy.become(list(Fault)[turn % len(Fault)])
            log(run, range(1600 + turn, 1601 + turn))
            time.sleep(0.15)
        proxy.become(Fault.NONE)
    assert_whole(server, run.run_id, output_dir, "FINISHED", tmp_path)


@pytest.mark.parametrize(
    "fault", [pytest.param(Fault.DROP, marks=pytest.mark.long), Fault.HANG], ids=lambda fault: fault.name
)
def test_a_store_that_is_away_until_after_the_end(
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
    time.sleep(2)  # the thread of this process ends before another one delivers, as it does with its process
    proxy.become(Fault.NONE)
    words = shlex.split(command.removeprefix("python -m experiments.doctor "))
    done = trainings.run(tmp_path, *words, door="doctor", store=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"run {run.run_id} is FINISHED" in done.stdout
    assert_whole(server, run.run_id, output_dir, "FINISHED", tmp_path)


def stop(uri: str, folder: str, go: str) -> None:
    """A run that is ended as by a signal when the file `go` is there."""
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
        _end_as_python_does()


def _end_as_python_does() -> None:
    """Waits for threads, and calls what wants to be called at the end: a fork ends without both."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


@pytest.mark.parametrize(
    "fault", [Fault.HANG, pytest.param(Fault.CUT_ANSWER, marks=pytest.mark.long)], ids=lambda fault: fault.name
)
def test_a_stopped_run_ends_in_time_while_the_store_hangs(
    trainings: Trainings, server: MlflowServer, proxy: FaultyProxy, tmp_path: Path, fault: Fault
) -> None:
    """A scheduler kills ten seconds after it has asked: by then the process is gone, and the store is told later."""
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
        gone = time.monotonic() - began
    print(f"{fault.name}: closed after {closed:.1f} s, gone after {gone:.1f} s")
    assert closed < 6
    assert gone < 10
    proxy.become(Fault.NONE)
    done = trainings.run(tmp_path, "sync", f"folders=['{tmp_path}']", door="doctor", store=False)
    assert (done.returncode, done.stderr) == (0, "")
    client = MlflowClient(server.uri)
    assert client.get_run(run_id).info.status == "KILLED"
    assert [(each.step, each.value) for each in client.get_metric_history(run_id, "loss")] == [(1, 1.0)]
    assert [each.path for each in client.list_artifacts(run_id, "figures")] == ["figures/large"]
