"""Arrays from a NumPy .npz file."""

from pathlib import Path
from typing import Unpack
from zipfile import BadZipFile, is_zipfile

import numpy as np

from experiments.data.arrays import Pair, from_arrays
from experiments.data.base import Splits, split_rules
from experiments.data.images.class_folders import SPLITS
from experiments.data.pipeline import SplitOptions
from experiments.errors import DataError

_NEW = {"training", "dev", "testing"}  # names since version 3 of the rules


def npz(path: str, **options: Unpack[SplitOptions]) -> Splits:
    """Returns splits of the arrays x_train, y_train and, if present, x_validation, x_test, or other names of `SPLITS`.

    Raises DataError if the file cannot be read, contains Python objects, or lacks an array.
    """
    file, expected = Path(path), "expected a NumPy .npz file with x_train and y_train"
    if not file.is_file():
        raise DataError(f"data.path='{file}' does not exist: {expected}. Set data.path=FILE.")
    if not is_zipfile(file):
        raise DataError(f"data.path='{file}' cannot be read: {expected}, received another kind of file.")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            train, validation, test = (_pair(arrays, file, split) for split in ("train", "validation", "test"))
    except (OSError, ValueError, BadZipFile) as error:
        reason = "an array of Python objects; save plain numbers" if "allow_pickle" in str(error) else error
        raise DataError(f"data.path='{file}' cannot be read: {expected}, received {reason}.") from error
    if train is None:
        raise DataError(f"data.path='{file}' has no x_train: {expected}. Save it with np.savez(FILE, x_train=...).")
    return from_arrays(train, validation, test, source=path, **options)


def _pair(arrays: "np.lib.npyio.NpzFile", file: Path, split: str) -> Pair | None:
    new = split_rules() > 2  # earlier rules have fewer names, in lower case
    for name in (name for name, named in SPLITS.items() if named == split and (new or name not in _NEW)):
        pair = (f"x_{name}", f"y_{name}")
        keys = sorted((key for key in arrays if (key.casefold() if new else key) in pair), key=str.casefold)
        if keys and tuple(map(str.casefold, keys)) != pair:
            raise DataError(f"data.path='{file}' has {', '.join(keys)}: expected x_{name}, y_{name}. Save both, once.")
        if keys:
            return arrays[keys[0]], arrays[keys[1]]
    return None
