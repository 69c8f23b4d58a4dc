"""Lists the image files of a data set: one folder per class, in `train/`, `valid/` and `test/` or without them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.images.headers import EXTENSIONS
from experiments.data.images.scan import ImageFile
from experiments.data.sampling import held_out
from experiments.errors import DataError

LAYOUT = "train/ and valid/ (and test/, if you like) with one folder per class in each, or one folder per class"
_VALIDATION = ("valid", "validation")


@dataclass(frozen=True)
class ClassFolders:
    """Classes, sorted by name, and the images of each split, sorted by class and path.

    held_out: True if there is no validation folder, so that `validation` was taken from the training images.
    """

    class_names: tuple[str, ...]
    train: tuple[ImageFile, ...]
    validation: tuple[ImageFile, ...]
    test: tuple[ImageFile, ...] | None
    held_out: bool

    def splits(self) -> dict[str, tuple[ImageFile, ...]]:
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: files for name, files in named.items() if files is not None}


def class_folders(root: Path, validation_fraction: float) -> ClassFolders:
    """Lists the images below `root` without reading them.

    If there is no validation folder, `validation_fraction` of the training images is held out by a hash of the names
    of their files. Raises DataError if a folder is missing or empty, or if splits have different classes.
    """
    if not root.is_dir():
        raise DataError(f"data.path='{root}' is not a folder: expected {LAYOUT}. Set data.path=FOLDER.")
    if not (root / "train").is_dir():
        _check_no_lone_split(root)
        classes, files = _classes(root, "")
        return ClassFolders(classes, *_divided(root, files, validation_fraction), test=None, held_out=True)
    classes, train = _classes(root, "train")
    validation = _other_split(root, _VALIDATION, classes)
    test = _other_split(root, ("test",), classes)
    held_out = validation is None
    if validation is None:
        train, validation = _divided(root, train, validation_fraction)
    return ClassFolders(classes, train, validation, test, held_out)


def _check_no_lone_split(root: Path) -> None:
    """Raises DataError for `valid` or `test` without `train`, which would otherwise be taken for classes."""
    lone = [name for name in (*_VALIDATION, "test") if (root / name).is_dir()]
    if lone:
        raise DataError(f"'{root}' has {lone[0]}/ but no train/: expected {LAYOUT}. Add or rename the folder.")


def _other_split(root: Path, names: tuple[str, ...], expected: tuple[str, ...]) -> tuple[ImageFile, ...] | None:
    present = [name for name in names if (root / name).is_dir()]
    if not present:
        return None
    if len(present) > 1:
        raise DataError(f"'{root}' has {present[0]}/ and {present[1]}/: expected one of them. Remove or rename one.")
    classes, files = _classes(root, present[0])
    if classes != expected:
        raise DataError(
            f"The class folders of '{root}' differ between splits: train/ has {', '.join(expected)}; {present[0]}/ has "
            f"{', '.join(classes)}. Give both the same folders."
        )
    return files


def _classes(root: Path, split: str) -> tuple[tuple[str, ...], tuple[ImageFile, ...]]:
    folder = root / split
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"'{folder}' has {len(names)} class folders ({', '.join(names) or 'none'}): expected 2 or more. "
            f"Set data.path to a folder with {LAYOUT}."
        )
    files = [ImageFile(path, label) for label, name in enumerate(names) for path in _images(root, split, name)]
    return tuple(names), tuple(files)


def _images(root: Path, split: str, class_name: str) -> list[str]:
    """Returns paths relative to `root`, sorted folder by folder; includes nested folders."""
    found = [path for path in files_below(root, root / split / class_name) if path.lower().endswith(EXTENSIONS)]
    if not found:
        raise DataError(
            f"The class folder '{root / split / class_name}' holds no image: expected files ending in "
            f"{', '.join(EXTENSIONS)}. Add images or remove the folder."
        )
    return sorted(found, key=lambda path: path.split("/"))


def files_below(root: Path, folder: Path) -> Iterator[str]:
    """Yields each file below `folder` that is not hidden, relative to `root`, with forward slashes."""
    for parent, _, names in os.walk(folder, followlinks=True):
        prefix = Path(parent).relative_to(root).as_posix()
        yield from (f"{prefix}/{name}" for name in names if not name.startswith("."))


def _divided(
    root: Path, files: tuple[ImageFile, ...], fraction: float
) -> tuple[tuple[ImageFile, ...], tuple[ImageFile, ...]]:
    chosen = held_out([file.path.rpartition("/")[2] for file in files], fraction)
    if not np.any(chosen):
        raise DataError(
            f"'{root}' has no folder valid/, and data.validation_fraction={fraction:g} of {len(files)} images leaves "
            "none for validation. Set data.validation_fraction=0.1 or add the folder."
        )
    train = tuple(file for file, held in zip(files, chosen, strict=True) if not held)
    return train, tuple(file for file, held in zip(files, chosen, strict=True) if held)
