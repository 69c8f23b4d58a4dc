"""Checkpoints on disk: TensorFlow's files, and a commit file with their digests and the other state of the run."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from experiments.checkpoints.callback_state import Arrays, State, pack, unpack
from experiments.checkpoints.layout import ARRAYS, BEST, COMMIT, committed, latest_committed, uncommitted
from experiments.errors import TrackingError
from experiments.files import TEMPORARY, literal, replacing, sha256_of, sync, write_atomically

logger = logging.getLogger(__name__)


class CommittedCheckpoint(NamedTuple):
    """A checkpoint whose files match their digests. `prefix` is its path without the suffixes of the files."""

    prefix: str
    state: State


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a new file that replaces `path`. The old file may have hard links from which it is being uploaded."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def save(checkpoint: tf.train.Checkpoint, directory: Path, number: int, name: str, max_to_keep: int) -> str:
    """Writes the files of the checkpoint `name`-`number`, deletes those of old ones, and returns the path prefix."""
    directory.mkdir(exist_ok=True)
    uncommit(directory / f"{name}-{number}")
    with literal(directory) as folder:
        manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep, checkpoint_name=name)
        return str(directory / Path(manager.save(checkpoint_number=number)).name)


def commit(prefix: str, state: Mapping[str, Any]) -> None:
    """Commits the files that TensorFlow has written at `prefix`, with `state`. Before this, readers ignore them."""
    path = Path(prefix)
    arrays: Arrays = {}
    packed = pack(state, arrays, "the run")
    write_arrays(path.with_name(path.name + ARRAYS), arrays)
    files: dict[str, str] = {}
    for each in sorted(path.parent.glob(f"{path.name}.*")):
        if each.suffix not in (COMMIT, TEMPORARY):
            sync(each)  # The commit file must not reach the disk before the files that it describes.
            files[each.name] = sha256_of(each)
    write_atomically(path.with_name(path.name + COMMIT), json.dumps({"files": files, "state": packed}))


def uncommit(path: Path) -> None:
    """Deletes the commit file before a checkpoint is overwritten, so that an interruption leaves no corrupt one."""
    path.with_name(path.name + COMMIT).unlink(missing_ok=True)


def latest_valid(
    directory: Path, missing: Callable[[State], str | None] = lambda _: None
) -> CommittedCheckpoint | None:
    """Returns the latest valid checkpoint; None if there is none. Logs a warning for each newer checkpoint.

    `missing` is called with a checkpoint's state. It returns a problem with other files that are needed, or None.
    """
    corrupt: list[str] = []
    for number, path in sorted(committed(directory), reverse=True):
        prefix = path.with_suffix("")
        problem = verify(prefix) or missing(state := read_state(prefix))
        if problem is None:
            _warn(corrupt, f"checkpoint {number}, the latest valid one")
            return CommittedCheckpoint(str(prefix), state)
        corrupt.append(f"{prefix} ({problem})")
    _warn(corrupt, "the beginning, because no checkpoint is valid")
    return None


def verify(prefix: Path) -> str | None:
    """Returns the problem with the checkpoint at `prefix`; None if all files match their digests."""
    path = prefix.with_name(prefix.name + COMMIT)
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        wrong = next((name for name, digest in files.items() if sha256_of(path.with_name(name)) != digest), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if wrong is None else f"{wrong} has changed since it was written"


def read_state(prefix: Path) -> State:
    """Returns the state that was committed with the checkpoint."""
    content = json.loads(prefix.with_name(prefix.name + COMMIT).read_text(encoding="utf-8"))
    with np.load(prefix.with_name(prefix.name + ARRAYS)) as arrays:
        state: State = unpack(content["state"], arrays)
    return state


def remove_uncommitted(directory: Path, name: str) -> None:
    """Deletes incomplete files of a killed process, and commit files of checkpoints that have been rotated out."""
    for path in uncommitted(directory, name):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _warn(corrupt: list[str], instead: str) -> None:
    for each in corrupt:
        logger.warning("The checkpoint %s is corrupt; resuming from %s.", each, instead)


def list_until(directory: Path, newest: str | None) -> None:
    """Removes checkpoints after `newest`, which are corrupt or lost, from TensorFlow's list of those to keep."""
    listed = tf.train.get_checkpoint_state(str(directory))
    # Only names are taken: TensorFlow's manager later deletes the files of the list, whose paths may lead elsewhere.
    names = [Path(path).name for path in listed.all_model_checkpoint_paths] if listed else []
    if newest is None or Path(newest).name not in names:
        (directory / "checkpoint").unlink(missing_ok=True)
        return
    count = names.index(Path(newest).name) + 1
    # TensorFlow's v2 API has no function that writes the list.
    found = tf.compat.v1.train.generate_checkpoint_state_proto(
        str(directory),
        str(directory / Path(newest).name),
        [str(directory / name) for name in names[:count]],
        all_model_checkpoint_timestamps=listed.all_model_checkpoint_timestamps[:count],
        last_preserved_timestamp=listed.last_preserved_timestamp,
    )
    write_atomically(directory / "checkpoint", str(found))


def newest_finite(directory: Path) -> str | None:
    """Returns the path prefix of the newest checkpoint without NaN or infinity; None if there is none."""
    found = tf.train.get_checkpoint_state(str(directory))
    prefixes: list[str] = list(found.all_model_checkpoint_paths) if found else []
    return next((prefix for prefix in reversed(prefixes) if _is_finite(prefix)), None)


def _is_finite(prefix: str) -> bool:
    with literal(prefix) as path:
        reader = tf.train.load_checkpoint(path)
        floating = [name for name, kind in reader.get_variable_to_dtype_map().items() if kind.is_floating]
        return all(bool(np.isfinite(reader.get_tensor(name).astype(np.float64)).all()) for name in floating)


def find(directory: Path, which: str, owner: str | None = None) -> str:
    """Returns the path prefix of checkpoint `best`, `latest` or a number in a run's `checkpoints/` folder.

    `owner` replaces the folder in errors, if the user does not know the folder. Raises TrackingError if there is no
    such checkpoint, or if it is corrupt.
    """
    numbered = {str(number): path.with_suffix("") for number, path in sorted(committed(directory))}
    others = {"latest": latest_committed(directory), BEST: latest_committed(directory / BEST)}
    named = {**numbered, **{name: prefix for name, prefix in others.items() if prefix is not None}}
    if which not in named:
        raise TrackingError(
            f"checkpoint={which} is not a checkpoint of {owner or directory}: expected one of "
            f"{', '.join(named) or 'none, as no checkpoint was written'}. Choose one of these."
        )
    problem = verify(named[which])
    if problem is not None:
        raise TrackingError(
            f"checkpoint={which} of {owner or directory} is corrupt: {problem}. Expected the files as they were "
            f"written. Choose another one, such as checkpoint={'latest' if which == BEST else BEST}."
        )
    return str(named[which])
