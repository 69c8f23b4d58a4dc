"""One checkpoint on disk: TensorFlow's files, and a seal that says what they are and that they are whole."""

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
from experiments.files import TEMPORARY, replacing, sha256_of, sync, write_atomically

logger = logging.getLogger(__name__)


class CommittedCheckpoint(NamedTuple):
    """A checkpoint whose files are as they were written. prefix: TensorFlow's path of it, without endings."""

    prefix: str
    state: State


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As another file than before: the one before may have other names, by which it is being uploaded."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def commit(prefix: str, state: Mapping[str, Any]) -> None:
    """Makes what TensorFlow has written at `prefix` a checkpoint, with `state`: until here it does not count."""
    path = Path(prefix)
    arrays: Arrays = {}
    packed = pack(state, arrays, "the run")
    write_arrays(path.with_name(path.name + ARRAYS), arrays)
    files: dict[str, str] = {}
    for each in sorted(path.parent.glob(f"{path.name}.*")):
        if each.suffix not in (COMMIT, TEMPORARY):
            sync(each)  # on the disk, not only with the operating system
            files[each.name] = sha256_of(each)
    write_atomically(path.with_name(path.name + COMMIT), json.dumps({"files": files, "state": packed}))


def uncommit(path: Path) -> None:
    """Before a checkpoint is written over, so that a stop meanwhile leaves an unfinished one and no damaged one."""
    path.with_name(path.name + COMMIT).unlink(missing_ok=True)


def latest_valid(
    directory: Path, missing: Callable[[State], str | None] = lambda _: None
) -> CommittedCheckpoint | None:
    """The newest checkpoint that is whole; a damaged newer one is named in a warning.

    missing: says of a checkpoint's state what is damaged elsewhere that it cannot do without.
    """
    damaged: list[str] = []
    for number, path in sorted(committed(directory), reverse=True):
        prefix = path.with_suffix("")
        problem = verify(prefix) or missing(state := read_state(prefix))
        if problem is None:
            _warn(damaged, f"checkpoint {number}, the one before")
            return CommittedCheckpoint(str(prefix), state)
        damaged.append(f"{prefix} ({problem})")
    _warn(damaged, "the beginning, as none is whole")
    return None


def verify(prefix: Path) -> str | None:
    """What is wrong with the checkpoint of this path prefix; None where it is whole."""
    path = prefix.with_name(prefix.name + COMMIT)
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        wrong = next((name for name, digest in files.items() if sha256_of(path.with_name(name)) != digest), None)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None if wrong is None else f"{wrong} is not what was written"


def read_state(prefix: Path) -> State:
    """What was sealed with the checkpoint."""
    content = json.loads(prefix.with_name(prefix.name + COMMIT).read_text(encoding="utf-8"))
    with np.load(prefix.with_name(prefix.name + ARRAYS)) as arrays:
        state: State = unpack(content["state"], arrays)
    return state


def remove_uncommitted(directory: Path, name: str) -> None:
    """Takes away what a killed process left half-written, and seals of what TensorFlow's manager has rotated out."""
    for path in uncommitted(directory, name):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _warn(damaged: list[str], instead: str) -> None:
    for each in damaged:
        logger.warning("The checkpoint %s is damaged; going on from %s.", each, instead)


def list_until(directory: Path, newest: str | None) -> None:
    """Takes what is newer, and damaged or gone, from TensorFlow's own list: it would count among those to keep."""
    listed = tf.train.get_checkpoint_state(str(directory))
    names = [Path(path).name for path in listed.all_model_checkpoint_paths] if listed else []
    if newest is None or Path(newest).name not in names:
        (directory / "checkpoint").unlink(missing_ok=True)
        return
    count = names.index(Path(newest).name) + 1
    found = tf.compat.v1.train.generate_checkpoint_state_proto(
        str(directory),
        newest,
        listed.all_model_checkpoint_paths[:count],
        all_model_checkpoint_timestamps=listed.all_model_checkpoint_timestamps[:count],
        last_preserved_timestamp=listed.last_preserved_timestamp,
    )
    write_atomically(directory / "checkpoint", str(found))


def newest_finite(directory: Path) -> str | None:
    """The path prefix of the newest checkpoint without a NaN or an infinity in its variables."""
    found = tf.train.get_checkpoint_state(str(directory))
    prefixes: list[str] = list(found.all_model_checkpoint_paths) if found else []
    return next((prefix for prefix in reversed(prefixes) if _is_finite(prefix)), None)


def _is_finite(prefix: str) -> bool:
    reader = tf.train.load_checkpoint(prefix)
    floating = [name for name, kind in reader.get_variable_to_dtype_map().items() if kind.is_floating]
    return all(bool(np.isfinite(reader.get_tensor(name).astype(np.float64)).all()) for name in floating)


def find(directory: Path, which: str, owner: str | None = None) -> str:
    """The path prefix of checkpoint `best`, `latest` or a number, below a run's `checkpoints/` folder.

    owner: whose they are, where nobody knows the folder. Raises TrackingError that lists what there is, or that says
    what is damaged.
    """
    numbered = {str(number): path.with_suffix("") for number, path in sorted(committed(directory))}
    others = {"latest": latest_committed(directory), BEST: latest_committed(directory / BEST)}
    named = {**numbered, **{name: prefix for name, prefix in others.items() if prefix is not None}}
    if which not in named:
        raise TrackingError(
            f"checkpoint={which} is not one of {owner or directory}: expected one of "
            f"{', '.join(named) or 'none: it is empty'}. Choose one of these."
        )
    problem = verify(named[which])
    if problem is not None:
        raise TrackingError(
            f"checkpoint={which} of {owner or directory} is damaged: {problem}. Expected the files as they were "
            f"written. Choose another one, such as checkpoint={'latest' if which == BEST else BEST}."
        )
    return str(named[which])
