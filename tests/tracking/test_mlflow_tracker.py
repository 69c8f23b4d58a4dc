"""The MLflow tracker on real SQLite stores, without a server."""

import logging
import math
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.trainings import Trainings

from experiments.data.base import DataSpec
from experiments.errors import StoppedRun, TrackingError
from experiments.tracking.base import Tracker, Upload
from experiments.tracking.journal import deliver, undelivered
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import open_store
from experiments.tracking.mlflow_tracker import MlflowTracker
from experiments.tracking.notes import NOTE

NAME = "Vërsuch 1"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    path = shutil.copy(empty_store, tmp_path_factory.mktemp("störe with blanks") / "ml flow.db")
    uri = f"sqlite:///{path}"
    open_store(uri)
    return uri


def tracker(uri: str, output_dir: Path, **changes: Any) -> MlflowTracker:
    settings: dict[str, Any] = {
        "tracking_uri": uri,
        "experiment_name": NAME,
        "run_name": output_dir.name,
        "tags": {"team": "vision"},
        "flush_timeout": 60,
        "delivery_interval": 0.2,
        "system_metrics": False,
        "system_metrics_interval": 1,
        "output_dir": output_dir,
    }
    return MlflowTracker(**settings | changes)


def history(uri: str, run_id: str | None, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in MlflowClient(uri).get_metric_history(str(run_id), name)]


def test_tracker_has_no_run_id_before_entry(tmp_path: Path) -> None:
    found: Tracker = tracker("sqlite:///x.db", tmp_path)
    assert found.run_id is None


def test_run_is_stored_completely(store: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "ä b.txt").write_text("figure")
    with tracker(store, tmp_path) as run:
        run.log_params({"model.dropout": "0.5", "uri": "http://me:secret@host"})
        for epoch in (1, 2):
            run.log_metrics({"loss": 1 / epoch, "nan": math.nan}, step=epoch)
        run.set_tags({"cpu": "x"})
        run.log_artifacts(Upload(figures, "figures"))
    client = MlflowClient(store)
    stored = client.get_run(str(run.run_id))
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", tmp_path.name)
    assert stored.data.params == {"model.dropout": "0.5", "uri": "http://me:***@host"}
    assert {"team": "vision", "cpu": "x"}.items() <= stored.data.tags.items()
    assert history(store, run.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert math.isnan(stored.data.metrics["nan"])
    assert [found.path for found in client.list_artifacts(str(run.run_id), "figures")] == ["figures/ä b.txt"]
    assert client.get_experiment_by_name(NAME).tags["mlflow.experimentKind"] == "custom_model_development"
    assert undelivered(tmp_path) == 0


def test_data_sets_are_logged_as_inputs(store: str, tmp_path: Path) -> None:
    spec = DataSpec((8, 8, 1), "uint8", 2, ("cat", "dog"), 3, "d" * 64, (1, 2), "/data/pets")
    with tracker(store, tmp_path) as run:
        run.log_dataset(spec, context="train")
        run.log_dataset(spec, context="validation")
    inputs = MlflowClient(store).get_run(str(run.run_id)).inputs.dataset_inputs
    found = {found.tags[0].value: found.dataset for found in inputs}
    assert set(found) == {"train", "validation"}
    assert [found[context].name for context in ("train", "validation")] == ["pets/train", "pets/validation"]
    assert found["train"].digest == "d" * 36
    assert '"class_counts": {"cat": 1, "dog": 2}' in found["train"].profile
    assert '"num_examples": 3' in found["train"].profile
    assert found["train"].source == '{"uri": "/data/pets"}'


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (
            ValueError("bad `x` <b>\n\nhttp://me:hunter2@host"),
            "FAILED",
            "`` ValueError: bad `x` <b> http://me:***@host ``",
        ),
        (StoppedRun("pruned after epoch 1"), "KILLED", "`pruned after epoch 1`"),
        (KeyboardInterrupt(), "KILLED", "`KeyboardInterrupt`"),
        (SystemExit(143), "KILLED", "`stopped by SIGTERM`"),
        (SystemExit(138), "KILLED", "`stopped by SIGUSR1`"),
        (SystemExit(1), "KILLED", "`SystemExit: 1`"),
        (SystemExit(300), "KILLED", "`SystemExit: 300`"),
        (SystemExit("bye"), "KILLED", "`SystemExit: bye`"),
    ],
    ids=repr,
)
def test_exception_determines_final_status_and_description(
    store: str, tmp_path: Path, error: BaseException, status: str, reason: str
) -> None:
    run = tracker(store, tmp_path, tags={NOTE: "start"})
    run.conclusion = "not reached"
    with pytest.raises(type(error)), run:
        raise error
    stored = MlflowClient(store).get_run(str(run.run_id))
    assert (stored.info.status, stored.data.tags[NOTE]) == (status, f"**{status}** {reason}\n\nstart")


def test_description_of_resumed_run_has_one_end_and_what_a_user_adds(store: str, tmp_path: Path) -> None:
    client, first = MlflowClient(store), tracker(store, tmp_path, tags={NOTE: "start"})
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    with tracker(store, tmp_path, run_id=first.run_id) as second:
        client.set_tag(str(first.run_id), NOTE, f"{client.get_run(str(first.run_id)).data.tags[NOTE]}\n\nmine")
        second.conclusion = "Best `x` 1"
    assert client.get_run(str(first.run_id)).data.tags[NOTE] == "**FINISHED** Best `x` 1\n\nstart\n\nmine"


def test_failed_run_stores_masked_traceback(store: str, tmp_path: Path) -> None:
    run = tracker(store, tmp_path)
    with pytest.raises(ValueError, match="no login"), run:
        raise ValueError("no login at http://me:hunter2@host")
    client = MlflowClient(store)
    text = Path(client.download_artifacts(str(run.run_id), "traceback.txt", str(tmp_path))).read_text()
    assert "test_mlflow_tracker.py" in text
    assert "http://me:***@host" in text
    assert client.get_run(str(run.run_id)).data.tags["error"] == "ValueError: no login at http://me:***@host"


def test_existing_run_is_resumed_in_its_folder(store: str, tmp_path: Path) -> None:
    with tracker(store, tmp_path) as first:
        first.log_metrics({"loss": 1.0}, step=1)
    with tracker(store, tmp_path, run_id=first.run_id, run_name="other") as second:
        second.log_metrics({"loss": 0.5}, step=2)
        assert second.run_id == first.run_id
    assert history(store, first.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    stored = MlflowClient(store).get_run(str(first.run_id)).info
    assert (stored.status, stored.run_name) == ("FINISHED", tmp_path.name)


def test_repeated_delivery_stores_each_metric_once(store: str, tmp_path: Path) -> None:
    with tracker(store, tmp_path) as run:
        for step in range(1500):
            run.log_metrics({"loss": math.nan if step == 7 else step / 10}, step=step)
    (tmp_path / "journal.offset").write_text("0")
    deliver(tmp_path, MlflowSink(MlflowClient(store), str(run.run_id)))
    assert [step for step, _ in history(store, run.run_id, "loss")] == list(range(1500))
    assert MlflowClient(store).get_run(str(run.run_id)).info.status == "FINISHED"


def test_rejected_events_are_logged_and_rest_is_stored(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker(store, tmp_path) as run:
        run.log_metrics({"loss": 1.0, "accuracy": 0.5}, step=1)
        run.log_params({"a": "1", "bad|name": "2", "b": "3"})
        run.log_artifacts(Upload(tmp_path / "never written"))
    stored = MlflowClient(store).get_run(str(run.run_id))
    assert stored.data.metrics == {"loss": 1.0, "accuracy": 0.5}
    assert stored.data.params == {"a": "1", "b": "3"}
    assert stored.info.status == "FINISHED"
    rejected = (tmp_path / "journal.rejected.jsonl").read_text().splitlines()
    assert ["bad|name" in rejected[0], "never written" in rejected[1]] == [True, True]
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 2


def test_250_long_params_are_stored(store: str, tmp_path: Path) -> None:
    with tracker(store, tmp_path) as run:
        run.log_params({f"key{number}": "x" * 6000 for number in range(250)})
    assert len(MlflowClient(store).get_run(str(run.run_id)).data.params) == 250


def test_system_metrics_have_mlflow_names(store: str, tmp_path: Path) -> None:
    """Covers a run that is shorter than the sampling interval."""
    with tracker(store, tmp_path, system_metrics=True, system_metrics_interval=60) as run:
        time.sleep(1.1)  # a step is a second
    metrics = MlflowClient(store).get_run(str(run.run_id)).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(metrics)


def test_relative_store_is_resolved_at_entry(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(store.removeprefix("sqlite:///")).parent
    monkeypatch.chdir(folder)
    with tracker("sqlite:///ml flow.db", tmp_path) as run:
        monkeypatch.chdir(tmp_path)
        run.log_metrics({"loss": 1.0}, step=1)
    assert history(store, run.run_id, "loss") == [(1, 1.0)]
    assert not (tmp_path / "ml flow.db").exists()


def _messages(error: pytest.ExceptionInfo[TrackingError]) -> str:
    return re.sub(r"\s+", " ", str(error.value))


def test_unreachable_server_raises_before_journal_is_written(tmp_path: Path, unused_port: int) -> None:
    uri = f"http://me:hunter2@127.0.0.1:{unused_port}"
    with pytest.raises(TrackingError) as error, tracker(uri, tmp_path):
        pass
    message = _messages(error)
    assert message.startswith(f"tracking server http://me:***@127.0.0.1:{unused_port} is not reachable: ")
    assert message.endswith("Start it, set logging.tracking_uri, or run with logging=none.")
    assert not (tmp_path / "journal.jsonl").exists()


@pytest.mark.parametrize("uri", ["", "./mlruns", "gopher://x", "no such thing"])
def test_invalid_store_address_raises(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError) as error, tracker(uri, tmp_path / "out"):
        pass
    assert _messages(error).startswith(f"logging.tracking_uri='{uri}' cannot be used as a tracking store: ")
    assert "Expected sqlite:///FILE or the http(s):// address" in _messages(error)
    assert list(tmp_path.iterdir()) == []


def create_store(uri: str) -> None:
    open_store(uri)


def test_store_is_created_again_after_creation_was_killed(trainings: Trainings, tmp_path: Path) -> None:
    uri, partial = f"sqlite:///{tmp_path}/m[1].db", tmp_path / ".m[1].db.new"
    with trainings.calling(create_store, uri) as process:
        while not (partial.exists() and partial.stat().st_size) and process.goes_on():
            time.sleep(0.005)
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "m[1].db").exists()
    assert open_store(uri).search_runs(["0"]) == []
    assert not partial.exists()


def test_store_below_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrackingError) as error, tracker(f"sqlite:///{tmp_path}/file/m.db", tmp_path / "out"):
        pass
    assert "cannot be written" in _messages(error)
    assert "logging.tracking_uri=sqlite:///FILE" in _messages(error)


def test_unwritable_output_folder_creates_no_run(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    before = _run_ids(store)
    with pytest.raises(TrackingError, match="is not writable") as error, tracker(store, tmp_path / "file" / "out"):
        pass
    assert "hydra.run.dir=FOLDER" in _messages(error)
    assert _run_ids(store) == before


def _run_ids(uri: str) -> Sequence[str]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(NAME)
    return [run.info.run_id for run in client.search_runs([found.experiment_id])] if found else []


def test_folder_of_other_run_raises(store: str, tmp_path: Path) -> None:
    with tracker(store, tmp_path) as first:
        pass
    with pytest.raises(TrackingError, match=f"contains the journal of run {first.run_id}"), tracker(store, tmp_path):
        pass


def test_resuming_missing_run_raises(store: str, tmp_path: Path) -> None:
    with (
        pytest.raises(TrackingError, match="resume=0123456789abcdef0123456789abcdef is not in sqlite"),
        tracker(store, tmp_path, run_id="0123456789abcdef0123456789abcdef"),
    ):
        pass


def test_deleted_experiment_raises_with_restore_command(store: str, tmp_path: Path) -> None:
    client = MlflowClient(store)
    identifier = client.create_experiment("gone")
    client.delete_experiment(identifier)
    with pytest.raises(TrackingError) as error, tracker(store, tmp_path, experiment_name="gone"):
        pass
    assert _messages(error) == (
        "logging.experiment_name='gone' is a deleted experiment: expected an active or a new one. "
        f"Restore it with `mlflow experiments restore --experiment-id {identifier}`, "
        "or set logging.experiment_name to another name."
    )


def test_clock_set_back_by_a_day_keeps_steps_and_times_in_order(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets the clock back between the stop and the resumption of a run."""
    sampled = {"system_metrics": True, "system_metrics_interval": 1}
    with tracker(store, tmp_path, **sampled) as first:
        first.log_metrics({"loss": 1.0}, step=1)
        time.sleep(2.5)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() - 86_400) * 1e9))
    identity = {"heartbeat": f"{time.time():.0f}"}
    with tracker(store, tmp_path, run_id=first.run_id, identity=identity, **sampled) as second:
        second.log_metrics({"loss": 1.0}, step=1)
        second.log_metrics({"loss": 0.5}, step=2)
        time.sleep(2.5)
    run = MlflowClient(store).get_run(str(first.run_id))
    assert (run.info.status, run.info.end_time >= run.info.start_time) == ("FINISHED", True)
    assert run.data.metrics["loss"] == 0.5
    assert float(run.data.tags["heartbeat"]) < real() - 80_000
    for name in run.data.metrics:
        steps = [step for step, _ in history(store, first.run_id, name)]
        assert steps == sorted(set(steps)), name
    steps = [step for step, _ in history(store, first.run_id, "system/cpu_utilization_percentage")]
    assert len(steps) >= 4
    assert 0 <= min(steps) < max(steps) < 60
