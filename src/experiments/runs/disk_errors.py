"""Explains errors of full and read-only disks in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from experiments.checkpoints.layout import CHECKPOINTS, last_checkpoint, latest_committed
from experiments.errors import TrainingError
from experiments.tracking.base import Tracker
from experiments.tracking.liveness import LOCK

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS,)


@contextmanager
def explained_disk_errors(output_dir: Path, tracker: Tracker) -> Iterator[None]:
    """Raises TrainingError for a disk error of Python or TensorFlow. It names the last checkpoint and how to resume."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        number = disk_errno(error)
        if number is not None:
            raise TrainingError(_message(number, error, output_dir, tracker.run_id)) from error
        if (output_dir / LOCK).exists():  # The folder itself may have been created again.
            raise
        raise TrainingError(
            f"'{output_dir}' no longer exists: expected the run folder until the run ends. Start the run again."
        ) from error


def disk_errno(error: Exception) -> int | None:
    """Returns the errno of a disk error, else None. TensorFlow passes on only the operating system's message."""
    if isinstance(error, OSError):
        return error.errno if error.errno in (*FULL, *READ_ONLY) else None
    return next((number for number in (*FULL, *READ_ONLY) if os.strerror(number) in str(error)), None)


def _message(number: int, error: Exception, output_dir: Path, run_id: str | None) -> str:
    where = getattr(error, "filename", None) or output_dir
    if number in READ_ONLY:
        return (
            f"'{where}' cannot be written: {os.strerror(number)}. Expected a folder this user can write. "
            "Set hydra.run.dir=FOLDER."
        )
    last = last_checkpoint("valid", latest_committed(output_dir / CHECKPOINTS))
    resume = f"resume={run_id}" if run_id else "resume=last"
    return (
        f"'{where}' cannot be written: {os.strerror(number)}. {last} "
        f"Free some space and continue with {resume}, or set hydra.run.dir=FOLDER on another disk."
    )
