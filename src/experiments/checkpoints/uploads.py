"""Checkpoints on their way to the tracking store while training goes on, so that another machine can take over."""

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
"""In the output folder: a folder for each checkpoint that is being uploaded. Hidden, so that the end uploads none."""


class CheckpointUploads:
    """Told of each sealed checkpoint; journals the upload of one every `every_n_minutes` (None: of none).

    The thread that trains makes hard links only, which rotation of the checkpoints cannot take away. While the store
    has not taken one upload the next is not begun: a store that is away for long costs the room of one checkpoint.
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
    """The checkpoint and the best weights in a folder of their own, as `checkpoints/` would look with no other one."""
    whole = folder / prefix.name
    staged = whole.with_name(whole.name + TEMPORARY)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    # The seal last: a copy is whole when it is there.
    for path in sorted(prefix.parent.glob(f"{prefix.name}.*"), key=lambda path: path.suffix == COMMIT):
        _link(path, staged / path.name)
    for path in (prefix.parent / BEST).glob("*"):
        _link(path, staged / BEST / path.name)
    name = json.dumps(prefix.name)
    (staged / "checkpoint").write_text(f"model_checkpoint_path: {name}\nall_model_checkpoint_paths: {name}\n")
    return staged.rename(whole)


def remove_stale(output_dir: Path) -> None:
    """Takes away what a killed process left and no waiting upload names; to be called by the owner of the folder."""
    for path in stale(output_dir):
        shutil.rmtree(path)


def stale(output_dir: Path) -> list[Path]:
    folder = output_dir / UPLOADS
    waiting = waiting_uploads(output_dir)
    return [path for path in sorted(folder.iterdir()) if path.absolute() not in waiting] if folder.is_dir() else []


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # a file system without hard links
