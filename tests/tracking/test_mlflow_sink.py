"""Reactions of the MLflow sink to the answers of a server."""

import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from requests import HTTPError, Response

from experiments.errors import Rejected
from experiments.tracking.journal import Unavailable
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import open_store

METRICS = {"event": "metrics", "time": 1, "step": 1, "values": {"loss": 1.0}}


class Answers(ThreadingHTTPServer):
    """Answers every request with `status` and `body` after `delay` seconds; `asked` lists the requested paths."""

    daemon_threads = True
    status = 200
    body = b"{}"
    delay = 0.0
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Answers)
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_GET(self) -> None:
        """Answers that the run is active, as a server that refuses only an event."""
        self.send_response(200)
        body = b'{"run": {"info": {"run_id": "0123", "lifecycle_stage": "active"}, "data": {}}}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Suppresses the log of requests."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server = Answers(("127.0.0.1", 0), _Handler)
    server.asked = []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _sink(port: int) -> MlflowSink:
    return MlflowSink(MlflowClient(f"http://127.0.0.1:{port}"), "0123456789abcdef0123456789abcdef")


def test_accepted_batch_is_one_request(answers: Answers) -> None:
    _sink(answers.server_port).send([METRICS])
    assert answers.asked == ["/api/2.0/mlflow/runs/log-batch"]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 401, 403])
def test_temporary_status_raises_unavailable(answers: Answers, status: int) -> None:
    answers.status = status
    with pytest.raises(Unavailable):
        _sink(answers.server_port).send([METRICS])


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"])
def test_mlflow_client_error_raises_rejected(answers: Answers, code: str) -> None:
    answers.status = 400
    answers.body = f'{{"error_code": "{code}", "message": "no"}}'.encode()
    with pytest.raises(Rejected, match="no"):
        _sink(answers.server_port).send([METRICS])


def test_html_answer_raises_unavailable(answers: Answers) -> None:
    answers.body = b"<html>please log in</html>"
    with pytest.raises(Unavailable):
        _sink(answers.server_port).send([METRICS])


@pytest.mark.parametrize("status", [400, 404])
def test_proxy_error_page_raises_unavailable(answers: Answers, status: int) -> None:
    answers.status = status
    answers.body = b"<html>no backend</html>"
    with pytest.raises(Unavailable):
        _sink(answers.server_port).send([METRICS])


@pytest.mark.parametrize(("status", "kind"), [(413, Rejected), (400, Rejected), (404, Unavailable), (502, Unavailable)])
def test_refused_upload_raises_rejected_or_unavailable_by_status(
    answers: Answers, status: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = Response()
    response.status_code = status

    def refused(*_: object, **__: object) -> None:
        raise HTTPError(f"{status}", response=response)

    monkeypatch.setattr(MlflowClient, "log_artifacts", refused)
    with pytest.raises(kind):
        _sink(answers.server_port).send([{"event": "artifacts", "path": str(tmp_path), "folder": "x"}])


def test_hanging_server_raises_unavailable(answers: Answers) -> None:
    answers.delay = 2
    with pytest.raises(Unavailable, match="timeout"):
        _sink(answers.server_port).send([METRICS])


def test_missing_server_raises_unavailable(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable):
        _sink(unused_port).send([METRICS])


@pytest.mark.parametrize("status", [403, 503])
def test_missing_permission_to_delete_does_not_block_later_events(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Accounts with the permission EDIT may upload, but not delete."""
    client = open_store(f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    run_id = client.create_run(client.create_experiment("e", (tmp_path / "artifacts").as_uri())).info.run_id
    sink, folder = MlflowSink(client, run_id, root=tmp_path), tmp_path / "checkpoints"
    folder.mkdir()
    upload = {"event": "artifacts", "time": 1, "path": str(folder), "folder": "checkpoints", "replace": True}
    (folder / "old").touch()
    sink.send([upload])
    (folder / "old").rename(folder / "new")

    def refuse(*_: object) -> None:
        answer = Response()
        answer.status_code = status
        raise HTTPError(response=answer)

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    if status == 403:
        sink.send([upload])
        assert "cannot remove files: older files stay in checkpoints/." in caplog.text
    else:
        with pytest.raises(Unavailable):
            sink.send([upload])
    assert {each.path for each in client.list_artifacts(run_id, "checkpoints")} == {
        "checkpoints/old",
        "checkpoints/new",
    }
