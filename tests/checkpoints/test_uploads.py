"""Uploads of checkpoints during training: staged files, intervals, and the artifacts in the store."""

import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from experiments.checkpoints import uploads
from experiments.checkpoints.store import commit, latest_valid
from experiments.checkpoints.uploads import UPLOADS, CheckpointUploads, remove_stale, stage
from experiments.tracking.base import Upload
from experiments.tracking.journal import Journal, deliver, rejected_file
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import get_or_create_experiment, open_store


class RecordingTracker:
    """Records the requested uploads, and writes them to a journal if there is one."""

    run_id: str | None = "r"

    def __init__(self, journal: Journal | None = None) -> None:
        self.requested: list[Upload] = []
        self._journal = journal

    def log_artifacts(self, upload: Upload) -> None:
        self.requested.append(upload)
        if self._journal is not None:
            options = {name: value for name, value in asdict(upload).items() if name != "directory"}
            self._journal.append("artifacts", path=str(upload.directory), **options)


def checkpoint(output: Path, number: int, best: int = 1) -> str:
    """Writes files named like those of `Checkpoints`, and returns the path prefix."""
    folder = output / "checkpoints"
    (folder / "best").mkdir(parents=True, exist_ok=True)
    for path in [folder / f"ckpt-{number}.index", folder / f"ckpt-{number}.data-00000-of-00001"]:
        path.write_text(f"{path.name} of TensorFlow")
    commit(str(folder / f"ckpt-{number}"), {"epoch": number})
    for name in ("best.json", f"best-{best}.index", "checkpoint"):
        (folder / "best" / name).write_text(f"best {best}")
    (folder / "checkpoint").write_text("all of them")
    return str(folder / f"ckpt-{number}")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


FILES = ["ckpt-6.data-00000-of-00001", "ckpt-6.index", "ckpt-6.json", "ckpt-6.npz"]


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advances the clock by a million seconds per call, so that every upload is due."""
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=iter(range(0, 10**9, 10**6)).__next__))


def test_staged_checkpoint_is_valid_after_rotation(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3)
    prefix = checkpoint(tmp_path, 6)
    staged = stage(Path(prefix), tmp_path / UPLOADS)
    for path in (tmp_path / "checkpoints").glob("ckpt-6*"):
        path.unlink()
    assert names(staged) == ["best/best-1.index", "best/best.json", "best/checkpoint", "checkpoint", *FILES]
    found = latest_valid(staged)
    assert found is not None
    assert found.state == {"epoch": 6}
    assert (staged / "checkpoint").read_text().splitlines() == [
        'model_checkpoint_path: "ckpt-6"',
        'all_model_checkpoint_paths: "ckpt-6"',
    ]


def test_staging_makes_only_hard_links(tmp_path: Path) -> None:
    staged = stage(Path(checkpoint(tmp_path, 6)), tmp_path / UPLOADS)
    assert {(staged / name).stat().st_nlink for name in [*FILES, "best/best.json"]} == {2}


def test_files_are_copied_if_hard_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refused)
    staged = stage(Path(checkpoint(tmp_path, 6)), tmp_path / UPLOADS)
    assert latest_valid(staged) is not None
    assert (staged / "ckpt-6.index").stat().st_nlink == 1


def test_no_upload_before_interval_or_without_store(tmp_path: Path) -> None:
    for minutes, run_id in ((10, "r"), (None, "r"), (1e-9, None)):
        tracker = RecordingTracker()
        tracker.run_id = run_id
        CheckpointUploads(tracker, tmp_path, every_n_minutes=minutes)(checkpoint(tmp_path, 6))  # type: ignore[arg-type]
        assert tracker.requested == []


def test_next_upload_waits_for_previous_one(tmp_path: Path, no_wait: None) -> None:
    tracker = RecordingTracker()
    uploading = CheckpointUploads(tracker, tmp_path, every_n_minutes=10)  # type: ignore[arg-type]
    uploading(checkpoint(tmp_path, 6))
    uploading(checkpoint(tmp_path, 12))
    folder = tmp_path / UPLOADS
    assert tracker.requested == [Upload(folder / "ckpt-6", "checkpoints", replace=True, temporary=True)]
    remove_stale(tmp_path)
    uploading(checkpoint(tmp_path, 18))
    assert [upload.directory.name for upload in tracker.requested] == ["ckpt-6", "ckpt-18"]


def test_stale_folders_are_deleted_at_next_start(tmp_path: Path, no_wait: None) -> None:
    journal = Journal(tmp_path)
    journal.open()
    uploading = CheckpointUploads(RecordingTracker(journal), tmp_path, every_n_minutes=10)  # type: ignore[arg-type]
    uploading(checkpoint(tmp_path, 6))
    journal.close()
    stage(Path(checkpoint(tmp_path, 12)), tmp_path / UPLOADS)
    (tmp_path / UPLOADS / "ckpt-18.tmp").mkdir()
    remove_stale(tmp_path)
    assert [path.name for path in (tmp_path / UPLOADS).iterdir()] == ["ckpt-6"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> MlflowClient:
    return open_store(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}")


def test_store_keeps_only_newest_checkpoint_and_staging_is_deleted(
    client: MlflowClient, tmp_path: Path, no_wait: None
) -> None:
    run_id = client.create_run(get_or_create_experiment(client, "uploads")).info.run_id
    sink = MlflowSink(client, run_id)
    journal = Journal(tmp_path)
    journal.open()
    uploading = CheckpointUploads(RecordingTracker(journal), tmp_path, every_n_minutes=10)  # type: ignore[arg-type]
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").write_text("grows")
    for number, best in ((3, 1), (6, 2)):
        for path in (tmp_path / "checkpoints").glob("best/*"):
            path.unlink()
        uploading(checkpoint(tmp_path, number, best))
        deliver(tmp_path, sink)
        assert list((tmp_path / UPLOADS).iterdir()) == []
    (tmp_path / "journal.offset").write_text("0")
    deliver(tmp_path, sink)  # Delivers again, as after a crash before the acknowledgement.
    journal.close()
    assert not rejected_file(tmp_path).exists()
    copy = Path(client.download_artifacts(run_id, "", str(tmp_path / "copy")))
    assert names(copy / "checkpoints") == [
        "best/best-2.index",
        "best/best.json",
        "best/checkpoint",
        "checkpoint",
        *FILES,
    ]
    assert names(copy / "tensorboard") == ["events"]
    assert latest_valid(copy / "checkpoints") is not None
