"""TensorFlow's own list of a folder's checkpoints, by which it rotates them."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from experiments.checkpoint_files import write_atomically


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
