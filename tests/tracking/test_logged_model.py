"""The logged model of a run: one in the store, however often its delivery is repeated or interrupted."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from tests.mlflow_server import MlflowServer

from experiments.data.base import DataSpec
from experiments.errors import Rejected
from experiments.tracking.journal import Event, Unavailable
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_tracker import MlflowTracker

SPEC = DataSpec((8, 8, 1), "uint8", 2, ("a", "b"), 5, "d" * 64, (2, 3), "photos")
METRICS = {
    "val_accuracy": (0.75, 2, "validation"),
    "best_val_accuracy": (0.75, 2, "validation"),
    "loss": (0.5, 2, "train"),
    "auc": (float("nan"), 2, "train"),
    "test_accuracy": (0.625, 3, "test"),
}
CALLS = (
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "log_outputs",
    "finalize_logged_model",
    "delete_logged_model",
)


class Killed(BaseException):
    """Ends a delivery as the end of the process does."""


class Finished:
    """A run that has recorded three epochs, and can finish again with other weights."""

    def __init__(self, uri: str, folder: Path, name: str) -> None:
        os.environ["MLFLOW_TRACKING_URI"] = uri  # models:/ID is found only there; `store_of_its_own` removes it
        self.client, self.folder = MlflowClient(uri), folder / name
        (self.folder / "model" / "data").mkdir(parents=True)
        (self.folder / "model" / "MLmodel").write_text("flavors: {}\n")
        settings: dict[str, Any] = {"system_metrics": False, "system_metrics_interval": 1.0, "delivery_interval": 0.05}
        with MlflowTracker(
            **settings, tracking_uri=uri, experiment_name="e", run_name=name, tags={}, flush_timeout=60,
            output_dir=self.folder
        ) as run:  # fmt: skip
            run.log_params({"model": "cnn"})
            for context in ("train", "validation", "test"):
                run.log_dataset(SPEC, context=context)
            for step, value in enumerate((0.25, 0.75, 0.75), 1):
                run.log_metrics({"val_accuracy": value, "loss": 1 / step}, step=step)
            run.log_metrics({"loss": 0.5, "test_accuracy": 0.625}, step=3)
        self.run_id = str(run.run_id)

    def event(self, weights: str, **metrics: tuple[float, int, str]) -> Event:
        (self.folder / "model" / "data" / "weights").write_text(weights)
        model = {"step": 2, "digest": weights, "metrics": {**METRICS, **metrics}}
        return {"event": "artifacts", "time": 9, "path": str(self.folder / "model"), "folder": "model", "model": model}

    def send(self, event: Event) -> str | None:
        sink = MlflowSink(self.client, self.run_id, root=self.folder)
        sink.send([event])
        return sink.model_uri

    def models(self) -> list[Any]:
        experiment = self.client.get_run(self.run_id).info.experiment_id
        return [each for each in self.client.search_logged_models([experiment]) if each.source_run_id == self.run_id]

    def assert_one(self, weights: str) -> Any:
        """Checks everything that must not depend on the number of deliveries."""
        (model,) = self.models()
        run = self.client.get_run(self.run_id)
        assert (model.status, model.name, model.tags["weights_sha256"]) == ("READY", "model", weights)
        assert [output.model_id for output in run.outputs.model_outputs].count(model.model_id) == 1
        path = Path(mlflow.artifacts.download_artifacts(f"runs:/{self.run_id}/model"))
        files = {item.name for item in path.rglob("*") if item.is_file()}
        assert files - {"registered_model_meta"} == {"MLmodel", "weights"}  # the other one is added to the copy
        assert (path / "data" / "weights").read_text() == weights
        linked = {metric.key: (metric.value, metric.step, metric.dataset_name) for metric in model.metrics}
        assert linked == {
            name: (value, step, f"photos/{context}")
            for name, (value, step, context) in METRICS.items()
            if value == value
        }
        assert {metric.dataset_digest for metric in model.metrics} == {"d" * 36}
        assert len(model.metrics) == len(linked)
        histories = {name: self.client.get_metric_history(self.run_id, name) for name in run.data.metrics}
        steps = {name: [point.step for point in points] for name, points in histories.items()}
        expected = {"val_accuracy": [1, 2, 3], "loss": [1, 2, 3, 3], "test_accuracy": [3], "best_val_accuracy": [2]}
        assert steps == expected
        assert [item.path for item in self.client.list_artifacts(self.run_id)] == []
        return model


@pytest.fixture(scope="module")
def uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('logged models'))}"


@pytest.fixture
def finished(uri: str, tmp_path: Path) -> Finished:
    return Finished(uri, tmp_path, tmp_path.name)


def interrupted(original: Any, when: str) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            raise Killed
        if when == "twice":  # MLflow's HTTP client repeats a request whose answer is lost
            original(*arguments, **options)
            return original(*arguments, **options)
        if when == "during":  # one of the two files is uploaded
            weights, hidden = Path(arguments[2]) / "data" / "weights", Path(arguments[2]).with_name("hidden")
            weights.rename(hidden)
            original(*arguments, **options)
            hidden.rename(weights)
            raise Killed
        original(*arguments, **options)
        raise Killed

    return call


def test_model_is_delivered_once_for_each_interruption(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round is a resumed run that finishes with other weights and is killed at another point."""
    address = finished.send(finished.event("first"))
    model = finished.assert_one("first")
    assert address == f"models:/{model.model_id}"
    assert model.params == {"model": "cnn"}
    assert finished.send(finished.event("first")) == address
    assert finished.assert_one("first").model_id == model.model_id
    points = [(call, when) for call in CALLS for when in ("before", "after")]
    for number, (call, when) in enumerate(
        [*points, ("log_model_artifacts", "during"), ("create_logged_model", "twice")]
    ):
        event = finished.event(f"weights {number}")
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, interrupted(getattr(MlflowClient, call), when))
            with nullcontext() if when == "twice" else pytest.raises(Killed):
                finished.send(event)
        assert any(model.status == "READY" for model in finished.models())
        finished.send(event)
        finished.assert_one(f"weights {number}")


def test_models_are_ranked_by_best_metric(uri: str, tmp_path: Path) -> None:
    ranked = []
    for number, best in enumerate((0.5, 0.9375, 0.75)):
        run = Finished(uri, tmp_path, f"ranked {number}")
        ranked.append((best, run.send(run.event(f"ranked {number}", best_ranked=(best, 2, "validation")))))
    order = {"field_name": "metrics.best_ranked", "ascending": False}
    found = MlflowClient(uri).search_logged_models(["1"], order_by=[order], max_results=3)
    assert [f"models:/{model.model_id}" for model in found] == [address for _, address in sorted(ranked, reverse=True)]


@pytest.mark.parametrize("source", ["runs:/{run}/model", "{model}"])
def test_registered_model_is_kept_when_other_weights_replace_it(finished: Finished, source: str) -> None:
    first = str(finished.send(finished.event("first")))
    name = f"registered {finished.run_id}"
    version = mlflow.register_model(source.format(run=finished.run_id, model=first), name)
    finished.client.set_registered_model_alias(name, "best", version.version)
    assert finished.client.get_model_version_by_alias(name, "best").run_id == finished.run_id
    second = str(finished.send(finished.event("second")))
    third = str(finished.send(finished.event("third")))
    assert [f"models:/{model.model_id}" for model in finished.models()] == [third, first]
    assert second not in (first, third)
    for address, expected in (
        (f"models:/{name}@best", "first"),
        (first, "first"),
        (f"runs:/{finished.run_id}/model", "third"),
    ):
        assert (Path(mlflow.artifacts.download_artifacts(address)) / "data" / "weights").read_text() == expected


@pytest.mark.parametrize(
    "location", ["{folder}/other", "http://evil/models/m-1/artifacts", "runs:/x/models/m-1/artifacts"]
)
def test_model_whose_recorded_place_is_elsewhere_is_refused(
    finished: Finished, uri: str, location: str, tmp_path: Path
) -> None:
    event = finished.event("first")
    finished.send(event)
    (model,) = finished.models()
    place = location.format(folder=tmp_path)
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as store, store:
        store.execute("update logged_models set artifact_location = ? where model_id = ?", (place, model.model_id))
    with pytest.raises(Rejected, match=f"the files of .*{model.model_id} are at .*: expected a place on its server"):
        finished.send(event)
    assert not (tmp_path / "other").exists()


class OldServer(ThreadingHTTPServer):
    """Forwards to an MLflow server, without the addresses of logged models; without any if it is `down`."""

    daemon_threads = True
    down = False

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target


class _Forward(BaseHTTPRequestHandler):
    def _forward(self) -> None:
        assert isinstance(self.server, OldServer)
        status, body = 404, b"<html>Not Found</html>"
        if not self.server.down and "logged-models" not in self.path:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = requests.request(
                self.command, self.server.target + self.path, data=content, headers=dict(self.headers), timeout=60
            )
            status, body = answer.status_code, answer.content
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 - names of http.server

    def log_message(self, *arguments: object) -> None:
        """Suppresses the log of requests."""


@pytest.fixture
def old_server(server: MlflowServer) -> Iterator[OldServer]:
    old = OldServer(server.uri)
    thread = Thread(target=old.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield old
    old.shutdown()
    old.server_close()
    thread.join()


@pytest.mark.slow
def test_server_receives_one_model_from_finished_run(server: MlflowServer, tmp_path: Path) -> None:
    run = Finished(server.uri, tmp_path, "r")
    for weights in ("first", "first", "second"):
        run.send(run.event(weights))
        run.assert_one(weights)


@pytest.mark.slow
def test_server_without_logged_models_receives_the_folder(old_server: OldServer, tmp_path: Path) -> None:
    run = Finished(f"http://127.0.0.1:{old_server.server_port}", tmp_path, "r")
    assert run.send(run.event("first")) is None
    path = Path(run.client.download_artifacts(run.run_id, "model"))
    assert (path / "data" / "weights").read_text() == "first"
    (history,) = json.loads(run.client.get_run(run.run_id).data.tags["mlflow.log-model.history"])
    assert history["artifact_path"] == "model"
    old_server.down = True
    with pytest.raises(Unavailable):
        run.send(run.event("second"))
