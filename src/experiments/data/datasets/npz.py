"""Arrays from a NumPy .npz file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack
from zipfile import BadZipFile, is_zipfile

import numpy as np

from experiments.data.arrays import Pair, from_arrays
from experiments.data.base import Splits
from experiments.data.pipeline import SplitOptions
from experiments.errors import DataError

_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def npz(path: str, **options: Unpack[SplitOptions]) -> Splits:
    """Returns splits of the arrays x_train, y_train and, if present, x_validation (or x_valid, x_val) and x_test.

    Raises DataError if the file or an array is missing or cannot be used for training.
    """
    parts = load_npz(Path(path))
    return from_arrays(parts["train"], parts.get("validation"), parts.get("test"), source=path, **options)


def load_npz(file: Path) -> dict[str, Pair]:
    """Returns (x, y) of every split in the file, by split name.

    Raises DataError if the file cannot be read, contains Python objects or lacks an array.
    """
    expected = "expected a NumPy .npz file with x_train and y_train"
    if not file.is_file():
        raise DataError(f"data.path='{file}' does not exist: {expected}. Set data.path=FILE.")
    if not is_zipfile(file):
        raise DataError(f"data.path='{file}' cannot be read: {expected}, received another kind of file.")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            parts = {split: _pair(arrays, file, names) for split, names in _PARTS.items()}
    except (OSError, ValueError, BadZipFile) as error:
        reason = "an array of Python objects; save plain numbers" if "allow_pickle" in str(error) else error
        raise DataError(f"data.path='{file}' cannot be read: {expected}, received {reason}.") from error
    found = {split: pair for split, pair in parts.items() if pair is not None}
    if "train" not in found:
        raise DataError(f"data.path='{file}' has no x_train: {expected}. Save it with np.savez(FILE, x_train=...).")
    return found


def _pair(arrays: "np.lib.npyio.NpzFile", file: Path, names: Sequence[str]) -> Pair | None:
    for name in names:
        present = [key for key in (f"x_{name}", f"y_{name}") if key in arrays]
        if len(present) == 1:
            raise DataError(f"data.path='{file}' has {present[0]} only: expected x_{name} and y_{name}. Save both.")
        if present:
            return arrays[f"x_{name}"], arrays[f"y_{name}"]
    return None
