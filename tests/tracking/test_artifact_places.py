"""Addresses of the files of runs, which come from the store: those of its own places are used, others are refused."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from experiments.errors import ExperimentError, Rejected, TrackingError
from experiments.tracking.liveness import LOCK, is_in_use, run_lock
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import checked, get_or_create_experiment, open_store

DATABASE, SERVER, SECURE = "sqlite:////s/m.db", "http://bob:pw@host:5000/sub", "https://host"
BELOW = "RUN/artifacts"
PLACES = [  # store, artifact location of the experiment, address of the files of the run, read, written
    (DATABASE, "file:///s/mlartifacts/1", f"file:///s/mlartifacts/1/{BELOW}", True, True),
    (DATABASE, "/s/mlartifacts/1/", f"/s/mlartifacts/1/{BELOW}", True, True),
    (DATABASE, "mine", f"mine/{BELOW}", True, True),
    (DATABASE, "s3://bucket/1", f"s3://bucket/1/{BELOW}", True, True),
    (DATABASE, "s3://bucket/1", f"s3://other/1/{BELOW}", False, False),
    (DATABASE, "file:///s/mlartifacts/1", "file:///home/me/project", True, False),
    (DATABASE, "file:///s/mlartifacts/1", "/home/me/project", True, False),
    (DATABASE, "file:///s/mlartifacts/1", f"file:///s/mlartifacts/1/{BELOW}/../../../..", True, False),
    (DATABASE, "file:///s/mlartifacts/1", "http://host/api/2.0/mlflow-artifacts/artifacts/x", False, False),
    (DATABASE, "http://host/x", f"http://host/x/{BELOW}", False, False),
    (DATABASE, "ftp://host/x", f"ftp://host/x/{BELOW}", False, False),
    (DATABASE, "sftp://host/x", f"sftp://host/x/{BELOW}", False, False),
    (DATABASE, "mlflow-artifacts://host/x", f"mlflow-artifacts://host/x/{BELOW}", False, False),
    (DATABASE, "runs:/x", f"runs:/x/{BELOW}", False, False),
    (DATABASE, "models:/m-1", f"models:/m-1/{BELOW}", False, False),
    (SERVER, "mlflow-artifacts:/1", f"mlflow-artifacts:/1/{BELOW}", True, True),
    (SERVER, "mlflow-artifacts://host:5000/1", f"mlflow-artifacts://host:5000/1/{BELOW}", True, True),
    (SERVER, "http://host:5000/1", f"http://host:5000/1/{BELOW}", True, True),
    (SERVER, "gs://bucket/1", f"gs://bucket/1/{BELOW}", True, True),
    (SERVER, "/srv/mlruns/1", f"/srv/mlruns/1/{BELOW}", True, True),
    (SERVER, "/srv/mlruns/1", "/home/me/project", True, False),
    (SERVER, "mlflow-artifacts://evil/1", f"mlflow-artifacts://evil/1/{BELOW}", False, False),
    (SERVER, "mlflow-artifacts://host/1", f"mlflow-artifacts://host/1/{BELOW}", False, False),
    (SERVER, "http://evil/1", f"http://evil/1/{BELOW}", False, False),
    (SERVER, r"http://evil\@host:5000/1", rf"http://evil\@host:5000/1/{BELOW}", False, False),
    (SERVER, "http://host:5000@evil/1", f"http://host:5000@evil/1/{BELOW}", False, False),
    (SERVER, "https://host:5000/1", f"https://host:5000/1/{BELOW}", False, False),
    (SECURE, "http://host/1", f"http://host/1/{BELOW}", False, False),
    (SECURE, "https://host/1", f"https://host/1/{BELOW}", True, True),
    ("file:///s/mlruns", "file:///s/mlruns/1", "file:///home/me/project", True, False),
]


@pytest.mark.parametrize(("store", "location", "uri", "read", "written"), PLACES)
def test_files_of_run_are_used_only_at_places_of_store(
    store: str, location: str, uri: str, read: bool, written: bool
) -> None:
    client: Any = SimpleNamespace(
        tracking_uri=store, get_experiment=lambda _: SimpleNamespace(artifact_location=location)
    )
    run: Any = SimpleNamespace(info=SimpleNamespace(run_id="RUN", experiment_id="1", artifact_uri=uri))
    for writes, expected in ((False, read), (True, written)):
        if expected:
            assert checked(client, run, writes=writes) is run
            continue
        with pytest.raises(TrackingError) as error:
            checked(client, run, writes=writes)
        assert "the files of run RUN are at" in str(error.value)
        assert "expected a place on its server, or below the location of its experiment" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("location", [None, "file", "text", "relative"])
def test_locations_that_mlflow_writes_are_places_of_store(
    empty_store: Path, tmp_path: Path, location: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.db").write_bytes(empty_store.read_bytes())
    client = open_store(f"sqlite:///{tmp_path / 'm.db'}")
    folder = tmp_path / "my files"
    locations = {"file": folder.as_uri(), "text": str(folder), "relative": "mine/a"}
    named = client.create_experiment("e", locations[location]) if location else get_or_create_experiment(client, "e")
    run = client.create_run(named)
    assert checked(client, run, writes=True) is run


@pytest.mark.parametrize("folder", ["../../..", "..", "/abs", "a/../../b", "a/./b", "."])
def test_folder_outside_of_run_is_rejected_without_request(tmp_path: Path, folder: str) -> None:
    """A server answers 500, after which the same event would be sent again forever."""
    (tmp_path / "a.txt").write_text("a")
    event = {"event": "artifacts", "time": 1, "path": str(tmp_path / "a.txt"), "folder": folder}
    with pytest.raises(Rejected, match="leads out of the files of the run"):
        MlflowSink(MlflowClient("http://127.0.0.1:9"), "0" * 32, root=tmp_path).send([event])


@pytest.mark.parametrize("name", [LOCK, "journal.jsonl", "journal.offset", "journal.rejected.jsonl"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_run_folder_with_links_or_pipes_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder, victim = tmp_path / "out", tmp_path / "notes.txt"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    assert not is_in_use(folder)  # does not wait for a writer of the pipe
    with pytest.raises(ExperimentError, match=f"'{folder / name}' is a link, or not a file"), run_lock(folder):
        pass
    assert victim.exists() == (kind == "link")


def test_unknown_experiment_of_run_is_one_error(empty_store: Path, tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(empty_store.read_bytes())
    client = open_store(f"sqlite:///{tmp_path / 'm.db'}")
    run: Any = SimpleNamespace(info=SimpleNamespace(run_id="RUN", experiment_id="77", artifact_uri="/x"))
    with pytest.raises(Rejected, match="77"):
        checked(client, run)
