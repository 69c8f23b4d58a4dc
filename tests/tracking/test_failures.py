"""Failures of stores, servers and artifact stores outside of the journal, and the reactions that the guide promises."""

import datetime
import ipaddress
import json
import logging
import shutil
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from omegaconf import DictConfig
from tests.mlflow_server import MlflowServer
from tests.tracking.faulty_proxy import Fault, FaultyProxy
from tests.trainings import Trainings

from experiments import files
from experiments.config import check
from experiments.errors import ConfigError, ExperimentError, TrackingError
from experiments.repair.base import Finding, treat
from experiments.repair.journals import undelivered_journals
from experiments.tracking.base import Upload
from experiments.tracking.delivery import Delivery
from experiments.tracking.journal import journal_file, rejected_file, undelivered
from experiments.tracking.liveness import signs_of_life
from experiments.tracking.mlflow_store import find_runs, open_store
from experiments.tracking.mlflow_tracker import MlflowTracker
from experiments.tracking.uris import sync_command


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"


def tracker(uri: str, output_dir: Path, **changes: Any) -> MlflowTracker:
    settings: dict[str, Any] = {
        "tracking_uri": uri,
        "experiment_name": "failures",
        "run_name": "r",
        "tags": {"purpose": "test"},
        "flush_timeout": 30,
        "delivery_interval": 0.05,
        "system_metrics": False,
        "system_metrics_interval": 1,
        "output_dir": output_dir,
        "identity": signs_of_life(output_dir),
    }
    return MlflowTracker(**settings | changes)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def losses(uri: str, run_id: str | None) -> list[int]:
    return [point.step for point in MlflowClient(uri).get_metric_history(str(run_id), "loss")]


def sync(folder: Path, uri: str, *, refill: bool = False) -> list[tuple[bool, str]]:
    """Does the work of `doctor sync`, and returns failure and text of each row."""
    return [(row.failed, row.done) for row in _treated(folder, uri, refill=refill)]


def _treated(folder: Path, uri: str, *, refill: bool) -> Iterator[Any]:
    return (treat(found, fix=True) for found in undelivered_journals([folder], uri, refill=refill))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = (each for each in caplog.records if each.name.startswith(("experiments", "mlflow")))
    return [each.getMessage() for each in own if each.levelno >= logging.WARNING]


@pytest.mark.slow
def test_lost_answer_leaves_one_run(server: MlflowServer, tmp_path: Path) -> None:
    proxy = FaultyProxy(server.port)
    client = open_store(proxy.uri)
    experiment = client.create_experiment("lost answers")
    proxy.become(Fault.CUT_ANSWER)
    before = proxy.connections
    threading.Timer(0.6, proxy.become, [Fault.NONE]).start()
    run = client.create_run(experiment, tags={"a": "1"})
    assert proxy.connections >= before + 3  # the request, a search for its run, and a search that is answered
    assert [each.info.run_id for each in find_runs(client, "lost answers")] == [run.info.run_id]
    proxy.close()


@pytest.mark.slow
def test_run_waits_for_locked_database(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MLflow itself gives up after five seconds."""
    lock = sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TrackingError) as error:
        tracker(store, tmp_path / "impatient", flush_timeout=0).__enter__()
    assert "cannot be used as a tracking store: " in str(error.value)
    assert "database is locked" in str(error.value)
    text = "The tracking store is unavailable; waiting up to 30 s"

    def release() -> None:
        wait_for(lambda: text in caplog.text)
        lock.close()

    threading.Thread(target=release).start()
    with tracker(store, tmp_path / "out") as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert losses(store, run.run_id) == [1]
    assert caplog.text.count(text) == 1


def test_deleted_run_is_one_warning_and_is_delivered_after_restore(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, client = tmp_path / "out", MlflowClient(store)
    with tracker(store, out, flush_timeout=0.5) as run:
        run.log_metrics({"loss": 1.0}, step=1)
        wait_for(lambda: not undelivered(out))
        client.delete_run(str(run.run_id))
        for step in range(2, 50):
            run.log_metrics({"loss": 1.0}, step=step)
        time.sleep(0.5)
    first, last = warnings_of(caplog)
    assert "training continues and events are kept" in first
    assert f"run {run.run_id} is deleted in MLflow: restore it in MLflow" in first
    assert "are not delivered" in last
    time.sleep(1)  # the delivery thread ends
    ((failed, text),) = sync(out, store)
    assert failed
    assert "is deleted in MLflow" in text
    client.restore_run(str(run.run_id))
    ((failed, text),) = sync(out, store)
    assert (failed, text.endswith("is FINISHED")) == (False, True)
    assert losses(store, run.run_id) == list(range(1, 50))
    assert not rejected_file(out).exists()


def test_lost_database_is_filled_again_from_journals(
    store: str, empty_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, database = tmp_path / "out", Path(store.removeprefix("sqlite:///"))
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "a.txt").write_text("a")
    with tracker(store, out, flush_timeout=0.5) as run:
        run.log_params({"seed": "0"})
        run.log_metrics({"loss": 1.0}, step=1)
        wait_for(lambda: not undelivered(out))
        database.unlink()
        run.log_metrics({"loss": 0.5}, step=2)
        run.log_artifacts(Upload(out / "figures", "figures"))
        time.sleep(0.5)
    assert len(warnings_of(caplog)) == 2
    assert all("\n" not in text for text in warnings_of(caplog))
    time.sleep(1)
    shutil.copy(empty_store, database)
    MlflowClient(store)._tracking_client.store.engine.dispose()  # as in a new process
    ((failed, text),) = sync(out, store)
    assert failed
    assert f"run_id={run.run_id} is not in" in text
    ((failed, text),) = sync(out, store, refill=True)
    assert (failed, text.endswith("is FINISHED")) == (False, True)
    assert sync(out, store, refill=True)[0][1].startswith("delivered 0; run ")
    (found,) = find_runs(open_store(store), "failures")
    assert found.data.tags["lost_run_id"] == run.run_id
    assert (found.info.status, found.data.params, found.data.tags["purpose"]) == ("FINISHED", {"seed": "0"}, "test")
    assert json.loads(journal_file(out).read_text().splitlines()[0])["run_id"] == found.info.run_id
    assert losses(store, found.info.run_id) == [1, 2]
    assert [each.path for each in MlflowClient(store).list_artifacts(found.info.run_id, "figures")] == ["figures/a.txt"]


class OddRepository:
    """Artifact store that raises what libraries of object stores raise, until `error` is None."""

    error: Exception | None = None
    uploaded: list[str]

    def __init__(self, *_: Any, **__: Any) -> None:
        """Accepts the arguments of MLflow."""

    def list_artifacts(self, path: str | None = None) -> list[Any]:  # noqa: ARG002
        return []

    def log_artifact(self, *paths: Any) -> None:
        self.log_artifacts(*paths)

    def log_artifacts(self, local: str, path: str | None = None) -> None:  # noqa: ARG002
        if OddRepository.error is not None:
            raise OddRepository.error
        OddRepository.uploaded.append(Path(local).name)


class EndpointConnectionError(Exception):
    """An error like those of botocore, which derive from Exception."""


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError("no route"),
        RuntimeError("x"),
        KeyError("Code"),
        ModuleNotFoundError("boto3"),
        OSError(5, "d"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_artifact_store_is_an_outage(
    store: str, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_artifact_repository_registry._registry, "gs", OddRepository)
    OddRepository.error, OddRepository.uploaded = error, []
    MlflowClient(store).create_experiment("failures", "gs://bucket")
    (tmp_path / "out" / "figures").mkdir(parents=True)
    with tracker(store, tmp_path / "out") as run:
        run.log_artifacts(Upload(tmp_path / "out" / "figures", "figures"))
        run.log_metrics({"loss": 1.0}, step=1)
        time.sleep(0.3)
        assert losses(store, run.run_id) == []
        OddRepository.error = None
    assert OddRepository.uploaded == ["figures"]
    assert losses(store, run.run_id) == [1]


def test_file_that_vanishes_during_upload_costs_no_other_file(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out" / "tensorboard"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    copy = shutil.copy2

    def copied(source: str, target: str, **options: Any) -> Any:
        if Path(source).name == "b":
            (folder / "b").unlink()
        return copy(source, target, **options)

    # MLflow lists the folder first, and then copies each file.
    monkeypatch.setattr("mlflow.utils.file_utils.shutil.copy2", copied)
    with tracker(store, tmp_path / "out") as run:
        run.log_artifacts(Upload(folder, "tensorboard"))
    assert run.run_id is not None
    found = MlflowClient(store).list_artifacts(run.run_id, "tensorboard")
    assert [item.path for item in found] == ["tensorboard/a", "tensorboard/c"]
    assert not (folder / "b").exists()
    assert not rejected_file(tmp_path / "out").exists()


def test_missing_package_of_artifact_store_is_one_line_and_leaves_no_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    client = MlflowClient(store)
    client.create_experiment("failures", "s3://bucket/place")
    with pytest.raises(TrackingError) as error:
        tracker(store, tmp_path / "out").__enter__()
    assert str(error.value).startswith("the artifact store s3://bucket/place cannot be used: ModuleNotFoundError: ")
    assert "pip install 'keras-experiments[s3]'" in str(error.value)
    assert list(find_runs(open_store(store))) == []


class _Answer(BaseHTTPRequestHandler):
    """Answers all requests with the status of the server, and 200 with an empty list of experiments."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        status = getattr(self.server, "status", 200)
        body = b"{}" if status == 200 else b'{"error_code": "%d", "message": "no access"}' % status
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Suppresses the log of requests."""


@pytest.fixture
def answering() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "no access Set MLFLOW_TRACKING_USERNAME and"),
        (403, "no access Ask for the "),
        (503, "many 503 error responses.*Expected sqlite:///FILE or "),
    ],
)
def test_first_answer_that_is_an_error_ends_at_once(answering: ThreadingHTTPServer, status: int, remedy: str) -> None:
    answering.status = status  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(TrackingError, match=remedy) as error:
        open_store(f"http://127.0.0.1:{answering.server_port}")
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 4


def test_private_certificate_is_used_as_mlflow_uses_it(
    answering: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path / "server.pem"))
    answering.socket = context.wrap_socket(answering.socket, server_side=True)
    uri = f"https://127.0.0.1:{answering.server_port}"
    with pytest.raises(TrackingError, match="Set MLFLOW_TRACKING_SERVER_CERT_PATH to its certificate"):
        open_store(uri)
    for name, value in (
        ("MLFLOW_TRACKING_INSECURE_TLS", "true"),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "server.pem")),
        ("REQUESTS_CA_BUNDLE", str(tmp_path / "server.pem")),
    ):
        with monkeypatch.context() as environment, pytest.warns() if "INSECURE" in name else _nothing():
            environment.setenv(name, value)
            assert list(find_runs(open_store(uri))) == []


class _nothing:  # noqa: N801 - a context
    def __enter__(self) -> None:
        """Expects no warning."""

    def __exit__(self, *_: object) -> None:
        """Suppresses no error."""


def _certificate(path: Path) -> Path:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private")])
    now, place = datetime.datetime.now(datetime.UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([place]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_names_that_mlflow_refuses_are_replaced(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracker(store, tmp_path) as run:
        for step in (1, 2):
            run.log_metrics({"acc@5": 0.5, "acc#5": 0.25, "loss": 1.0, "val_acc[top]": 0.1}, step=step)
    found = MlflowClient(store).get_run(str(run.run_id)).data.metrics
    assert found == {"acc_5": 0.5, "acc_5_2": 0.25, "loss": 1.0, "val_acc_top_": 0.1}
    assert [text.partition(":")[0] for text in warnings_of(caplog)] == [
        f"MLflow refuses the name of the metric {name!r}" for name in ("acc@5", "acc#5", "val_acc[top]")
    ]


def test_stopped_run_is_killed_in_store_before_its_upload_ends(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, blocked = threading.Event(), threading.Event()

    def upload(*_: Any, **__: Any) -> None:
        begun.set()
        blocked.wait(20)

    monkeypatch.setattr(MlflowClient, "log_artifacts", upload)
    (tmp_path / "out" / "figures").mkdir(parents=True)
    began = time.monotonic()
    with pytest.raises(SystemExit), tracker(store, tmp_path / "out", grace_seconds=0.5) as run:  # noqa: PT012
        run.log_artifacts(Upload(tmp_path / "out" / "figures", "figures"))
        wait_for(begun.is_set)
        raise SystemExit(143)
    assert 0.5 < time.monotonic() - began < 4
    assert undelivered(tmp_path / "out") == 2
    assert MlflowClient(store).get_run(str(run.run_id)).info.status == "KILLED"
    blocked.set()
    wait_for(lambda: undelivered(tmp_path / "out") < 2)


def test_stopped_process_changes_nothing_of_a_run_that_another_machine_has_resumed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The upload of the first process takes longer than the other machine needs to resume the run."""
    begun, blocked = threading.Event(), threading.Event()
    upload, client = MlflowClient.log_artifacts, MlflowClient(store)
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / folder.name).touch()

    def slowly(self: MlflowClient, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        begun.set()
        assert str(second) in local_dir or blocked.wait(30)
        upload(self, run_id, local_dir, artifact_path)

    def status() -> str:
        return str(client.get_run(str(run.run_id)).info.status)

    def resume() -> None:
        wait_for(lambda: status() == "KILLED")
        other = {"host": "elsewhere", "pid": "7", "heartbeat": "1", "output_dir": str(second)}
        with tracker(store, second, run_id=run.run_id, identity=other) as resumed:
            resumed.log_artifacts(Upload(second / "checkpoints", "checkpoints", replace=True))
            wait_for(lambda: not undelivered(second))
            blocked.set()
            wait_for(lambda: "are not delivered" in caplog.text)
            seen.append(status())

    monkeypatch.setattr(MlflowClient, "log_artifacts", slowly)
    seen: list[str] = []
    machine = threading.Thread(target=resume)
    with pytest.raises(SystemExit), tracker(store, first, grace_seconds=3) as run:  # noqa: PT012
        run.log_artifacts(Upload(first / "checkpoints", "checkpoints", replace=True))
        wait_for(begun.is_set)
        run.log_metrics({"loss": 1.0}, step=1)
        machine.start()
        raise SystemExit(143)
    machine.join()
    assert (seen, status()) == (["RUNNING"], "FINISHED")
    assert "checkpoints/second" in [each.path for each in client.list_artifacts(str(run.run_id), "checkpoints")]
    assert losses(store, run.run_id) == []
    assert warnings_of(caplog)[-1] == (
        f"3 events of run {run.run_id} are not delivered; kept in {first}. "
        f"Process 7 on elsewhere has resumed the run in {second}."
    )
    time.sleep(1)  # the delivery thread ends
    ((failed, text),) = sync(first, store)
    assert (failed, text.partition(" If")[0]) == (False, f"not sent: the run is in {second} on elsewhere.")
    assert status() == "FINISHED"


def test_resumed_run_delivers_what_its_earlier_process_left(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of the earlier process include its own process id."""
    out = tmp_path / "out"
    first, second = (signs_of_life(out) | {"pid": pid} for pid in ("1", "2"))
    with monkeypatch.context() as absent, pytest.raises(SystemExit):  # noqa: PT012
        absent.setattr(Delivery, "start", lambda _: None)
        with tracker(store, out, identity=first) as run:
            run.log_metrics({"loss": 1.0}, step=1)
            raise SystemExit(143)
    assert undelivered(out) == 5
    with tracker(store, out, identity=second, run_id=run.run_id) as resumed:
        resumed.log_metrics({"loss": 1.0}, step=2)
    assert undelivered(out) == 0
    found = MlflowClient(store).get_run(str(run.run_id))
    assert (found.info.status, found.data.tags["pid"]) == ("FINISHED", "2")
    assert losses(store, run.run_id) == [1, 2]


def test_command_for_store_with_login_names_missing_variables() -> None:
    assert sync_command(Path("/a"), "http://me:hunter22@host:5000") == (
        "MLFLOW_TRACKING_USERNAME=USER MLFLOW_TRACKING_PASSWORD=PASSWORD experiments doctor sync "
        """'folders=["/a"]' 'logging.tracking_uri="http://host:5000"'"""
    )
    assert "USERNAME" not in sync_command(Path("/a"), "http://host:5000")


def test_experiment_id_of_environment_is_used(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = MlflowClient(store).create_experiment("team")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", named)
    with tracker(store, tmp_path / "out", experiment_name=named) as run:
        pass
    assert MlflowClient(store).get_run(str(run.run_id)).info.experiment_id == named
    assert [each.info.run_id for each in find_runs(open_store(store), named)] == [run.run_id]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "99")
    with pytest.raises(TrackingError, match="MLFLOW_EXPERIMENT_ID=99 cannot be used: No Experiment with id=99 exists"):
        tracker(store, tmp_path / "other", experiment_name="99").__enter__()


def test_environment_selects_experiment_and_refuses_run(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12")
    assert composed("data=digits").logging.experiment_name == "12"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    assert composed("data=digits").logging.experiment_name == "named"
    check(composed("data=digits"))
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    with pytest.raises(ConfigError, match="MLFLOW_RUN_ID is set: expected resume=ID"):
        check(composed("data=digits"))


def test_each_failure_of_a_repair_is_a_row() -> None:
    def fail() -> str:
        raise RuntimeError("what no code expects")

    assert treat(Finding("journal", "a", "b", "c", fail), fix=True).done == "failed: RuntimeError: what no code expects"


def test_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(ExperimentError, match=r"files cannot be locked on .*: expected Linux, macOS or WSL"):
        files.is_locked(Path(shutil.copy(__file__, tmp_path)))


@pytest.mark.slow
def test_sweep_survives_restart_and_loss_of_server(trainings: Trainings, server: MlflowServer, tmp_path: Path) -> None:
    """The server is away when the second job starts, and again at the end."""
    words = ("-m", "data=digits", "epochs=1", "seed=1,2", "progress=none", "logging.flush_timeout=1")
    quick = ("logging.log_figures=false", "logging.log_model=false", "logging.system_metrics=false")
    store = f"logging.tracking_uri={server.uri}"
    with trainings.started(tmp_path, *words, *quick, store, store=False) as sweep:
        sweep.wait_for("#1 seed=2 (job 2 of 2)")
        server.kill()
        sweep.wait_for("waiting up to 600 s")
        server.start()
        sweep.wait_for("#1 seed=2:")
        server.kill()
        assert sweep.wait() == 0, sweep.stderr
        server.start()
        assert "Traceback" not in sweep.stderr
        assert sweep.stdout.count("COMPLETE") == 2
        assert "The parent run is not ended: " in sweep.stderr
