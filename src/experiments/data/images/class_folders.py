"""Lists the image files of a data set: one folder per class, in `train/`, `valid/` and `test/` or without them."""

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.base import split_rules
from experiments.data.images.headers import EXTENSIONS
from experiments.data.images.scan import ImageFile
from experiments.data.images.walk import OUTSIDE, Walk, walk
from experiments.data.sampling import held_out
from experiments.errors import DataError, first_few

LAYOUT = "train/ and valid/ (and test/, if you like) with one folder per class in each, or one folder per class"
_RULES_1 = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}
_SPLITS = {**_RULES_1, "training": "train", "val": "validation", "dev": "validation", "testing": "test"}
_Files = tuple[ImageFile, ...]


@dataclass(frozen=True)
class ClassFolders:
    """Classes, sorted by name, and the images of each split, sorted by class and path.

    held_out: True if there is no validation folder, so that `validation` was taken from the training images.
    left_out: reason by path for everything else below the folder.
    """

    class_names: tuple[str, ...]
    train: _Files
    validation: _Files
    test: _Files | None
    held_out: bool
    left_out: Mapping[str, str]

    def splits(self) -> dict[str, _Files]:
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: files for name, files in named.items() if files}


def class_folders(root: Path, fraction: float) -> ClassFolders:
    """Lists the images below `root` without reading them.

    A folder is a split if a part of its name is train, training, val, valid, validation, dev, test or testing. If there
    is no validation folder, `fraction` of the training images is held out by a hash of their paths below the class
    folder; 1 takes all. Raises DataError if a folder is missing, empty or ambiguous, or if splits have other classes.
    """
    if not root.is_dir():
        raise DataError(f"data.path='{root}' is not a folder: expected {LAYOUT}. Set data.path=FOLDER.")
    folders = _split_folders(root)
    found = walk(root, filter(None, folders.values()))
    if folders["train"] == "":
        _check_understood(root, found)
    listed = {split: _classes(root, folder, found, 1 if fraction == 1 else 2) for split, folder in folders.items()}
    names, train = listed["train"]
    for split, (others, _) in listed.items():
        if others != names:
            text = f"The class folders of '{root}' differ between splits: {folders['train']}/ has {', '.join(names)}"
            raise DataError(f"{text}; {folders[split]}/ has {', '.join(others)}. Give both the same folders.")
    used = {file.path for _, files in listed.values() for file in files}
    left_out = found.left_out | {path: OUTSIDE for path in found.files if path not in used}
    test = listed["test"][1] if "test" in listed else None
    if "validation" in listed:
        return ClassFolders(names, train, listed["validation"][1], test, False, left_out)
    depth = -1 if split_rules() == 1 else 2 if folders["train"] else 1
    return ClassFolders(names, *_divided(root, train, fraction, depth), test, fraction < 1, left_out)


def _split_folders(root: Path) -> dict[str, str]:
    """Returns the name of the folder of each split; {"train": ""} if the folders of `root` are classes."""
    folders: dict[str, str] = {}
    for name in sorted(name for name in next(os.walk(root), ("", [], []))[1] if not name.startswith(".")):
        parts, known = ([name], _RULES_1) if split_rules() == 1 else (re.split(r"[-_.\s]+", name.casefold()), _SPLITS)
        splits = {known[part] for part in parts if part in known}
        if len(splits) == 1 and (other := folders.setdefault(splits.pop(), name)) != name:
            raise DataError(f"'{root}' has {other}/ and {name}/: expected one of them. Remove or rename one.")
    if folders and "train" not in folders:
        lone = min(folders.values())
        raise DataError(f"'{root}' has {lone}/ but no train/: expected {LAYOUT}. Add or rename the folder.")
    return folders or {"train": ""}


def _check_understood(root: Path, found: Walk) -> None:
    """Raises DataError for folders without images of their own that all contain the same folders."""
    inner: dict[str, set[str]] = {folder: set() for folder in sorted(found.folders) if "/" not in folder}
    for above, _, name in (folder.partition("/") for folder in found.folders if folder.count("/") == 1):
        inner[above].add(_composed(name))
    same = set.union(*inner.values()) if len(inner) > 1 and split_rules() > 1 else set()
    own = any(path.count("/") == 1 for path in found.files)
    if len(same) > 1 and not own and all(names == same for names in inner.values()):
        raise DataError(
            f"The folders {first_few(inner)} of '{root}' have no images but the same folders, {first_few(sorted(same))}"
            f": expected {LAYOUT}. Name the splits train, valid and test, or move the classes to '{root}/train'."
        )


def _classes(root: Path, split: str, found: Walk, least: int) -> tuple[tuple[str, ...], _Files]:
    """Returns classes, sorted by name, and images, sorted by path. Folders whose names look equal are one class."""
    above = [split] if split else []
    folders = [path.rpartition("/")[2] for path in found.folders if path.split("/")[:-1] == above]
    classes: dict[str, list[str]] = {name: [] for name in sorted(map(_composed, folders))}
    if len(classes) < least:
        received = f"'{root / split}' has {len(classes)} class folders ({', '.join(classes) or 'none'})"
        raise DataError(f"{received}: expected {least} or more. Set data.path to a folder with {LAYOUT}.")
    for path in found.files:
        parts = path.split("/", len(above) + 1)
        if parts[:-2] == above and len(parts) > 1:
            classes[_composed(parts[-2])].append(path)
    for name, paths in classes.items():
        if not paths:
            text = f"The class folder '{root / split / name}' holds no image: expected files ending in"
            raise DataError(f"{text} {', '.join(EXTENSIONS)}. Add images or remove the folder.")
    return tuple(classes), tuple(ImageFile(path, label) for label, name in enumerate(classes) for path in classes[name])


def _composed(name: str) -> str:
    """Returns the name in Unicode's composed form, because file systems differ; bytes that are not UTF-8 as `\\xe9`."""
    readable = os.fsencode(name).decode(errors="backslashreplace")
    return name if split_rules() == 1 else unicodedata.normalize("NFC", readable)


def _divided(root: Path, files: _Files, fraction: float, depth: int) -> tuple[_Files, _Files]:
    """Returns training and validation images by a hash of their paths without the first `depth` folders."""
    chosen = held_out([file.path.split("/", depth)[depth] for file in files], fraction) | (fraction == 1)
    if not np.any(chosen):
        raise DataError(
            f"'{root}' has no folder valid/, and data.validation_fraction={fraction:g} of {len(files)} images leaves "
            "none for validation. Add the folder, or set data.validation_fraction=0.1 for images with different names."
        )
    train = tuple(file for file, held in zip(files, chosen, strict=True) if not held)
    return train, tuple(file for file, held in zip(files, chosen, strict=True) if held)
