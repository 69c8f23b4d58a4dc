"""Uploads checkpoints to the tracking store during training, so that another machine can resume the run."""

import json
import os
import shutil
import time
from pathlib import Path

from experiments.checkpoints.layout import BEST, CHECKPOINTS, COMMIT
from experiments.files import TEMPORARY
from experiments.tracking.base import Tracker, Upload
from experiments.tracking.journal import waiting_uploads

UPLOADS = ".uploads"
"""Folder in the run folder for checkpoints that are being uploaded. It is hidden, so the final upload skips it."""


class CheckpointUploads:
    """Receives each committed checkpoint, and writes at most one upload to the journal every `every_n_minutes`.

    None uploads nothing. The training thread only makes hard links, which stay valid when old checkpoints are deleted.
    The next upload starts after the store has received the previous one, so an unavailable store costs the disk space
    of one checkpoint.
    """

    def __init__(self, tracker: Tracker, output_dir: Path, *, every_n_minutes: float | None) -> None:
        self._tracker = tracker
        self._output_dir = output_dir
        self._every_n_minutes = every_n_minutes
        self._begun = time.monotonic()

    def __call__(self, prefix: str) -> None:
        if not self._is_due():
            return
        self._begun = time.monotonic()
        staged = stage(Path(prefix), self._output_dir / UPLOADS)
        self._tracker.log_artifacts(Upload(staged, CHECKPOINTS, replace=True, temporary=True))
        if (self._output_dir / "tensorboard").is_dir():
            self._tracker.log_artifacts(Upload(self._output_dir / "tensorboard", "tensorboard", growing=True))

    def _is_due(self) -> bool:
        if self._every_n_minutes is None or self._tracker.run_id is None:
            return False
        if time.monotonic() - self._begun < 60 * self._every_n_minutes:
            return False
        folder = self._output_dir / UPLOADS
        return not folder.is_dir() or not any(folder.iterdir())


def stage(prefix: Path, folder: Path) -> Path:
    """Links the checkpoint and the best weights into a new folder with the layout of `checkpoints/`, and returns it."""
    complete = folder / prefix.name
    staged = complete.with_name(complete.name + TEMPORARY)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    # The commit file comes last: a copy with a commit file is complete.
    for path in sorted(prefix.parent.glob(f"{prefix.name}.*"), key=lambda path: path.suffix == COMMIT):
        _link(path, staged / path.name)
    for path in (prefix.parent / BEST).glob("*"):
        _link(path, staged / BEST / path.name)
    name = json.dumps(prefix.name)
    (staged / "checkpoint").write_text(f"model_checkpoint_path: {name}\nall_model_checkpoint_paths: {name}\n")
    return staged.rename(complete)


def remove_stale(output_dir: Path) -> None:
    """Deletes folders that no waiting upload refers to. Only the process that owns the run folder may call it."""
    for path in stale(output_dir):
        shutil.rmtree(path)


def stale(output_dir: Path) -> list[Path]:
    """Finds folders that a killed process left and that no waiting upload refers to."""
    folder = output_dir / UPLOADS
    waiting = waiting_uploads(output_dir)
    return [path for path in sorted(folder.iterdir()) if path.absolute() not in waiting] if folder.is_dir() else []


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # The file system has no hard links.
