"""Lists the image files of a data set: one folder per class, in `train/`, `valid/` and `test/` or without them."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.base import split_rules
from experiments.data.images.headers import EXTENSIONS
from experiments.data.images.scan import ImageFile
from experiments.data.images.walk import OUTSIDE, SYSTEM, Walk, walk
from experiments.data.sampling import held_out
from experiments.errors import DataError, first_few

LAYOUT = "train/ and valid/ (and test/, if you like) with one folder per class in each, or one folder per class"
_RULES_1 = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
SPLITS = {**_RULES_1, "training": "train", "val": "validation", "dev": "validation", "testing": "test"}
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

    A folder is a split if its name is in `SPLITS`, or if a part of its name is and there is a folder train or only such
    splits, beside folders of images at most. A test split without class folders is left out. Without a validation
    folder, `fraction` of the training images is held out by a hash of their paths below the class folder; 1 takes all.
    Raises DataError if a folder is missing, empty or ambiguous, or if classes differ.
    """
    if not root.is_dir():
        raise DataError(f"data.path='{root}' is not a folder: expected {LAYOUT}. Set data.path=FOLDER.")
    folders = _split_folders(root)
    found = walk(root, filter(None, folders.values()))
    if folders["train"] == "" and split_rules() > 1:
        _check_understood(root, found)
    if split_rules() > 2 and "test" in folders and _flat(root, [folders["test"]]):
        del folders["test"]  # images of a competition, without labels: left out, which is reported
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
    names = sorted(name for name in next(os.walk(root), ("", [], []))[1] if name[0] != "." and name not in SYSTEM)
    found = {name: split for name in names if (split := _split_of(name))}
    exact = {n: split for n, split in found.items() if n.casefold() in SPLITS} if split_rules() > 2 else found
    others = [name for name in names if name not in found]
    # Beside seg_train/ and seg_test/ with class folders, seg_pred/ with images only is no class.
    clear = not others or (len(found) > 1 and _flat(root, others) == others and not _flat(root, found))
    if "train" not in exact.values() and not (len(set(found.values())) == len(found) and clear):
        found = exact
    for name, split in found.items():
        if (name in exact or split not in exact.values()) and (other := folders.setdefault(split, name)) != name:
            raise DataError(f"'{root}' has {other}/ and {name}/: expected one of them. Remove or rename one.")
    if folders and "train" not in folders:
        raise DataError(
            f"'{root}' has {min(folders.values())}/ but no train/: expected {LAYOUT}. Add or rename the folder."
        )
    return folders or {"train": ""}


def _flat(root: Path, names: Iterable[str]) -> list[str]:
    """Returns those of the folders that contain files only."""
    return [name for name in names if not next(os.walk(root / name), ("", [], []))[1]]


def _split_of(name: str) -> str | None:
    """Returns the split that the name of a folder or its parts mean; None if there is none, or several."""
    if split_rules() == 1:
        return _RULES_1.get(name)
    parts = re.split(r"[-_.\s]+" if split_rules() == 2 else r"[-_.\s\d]+|(?<=[a-z])(?=[A-Z]|set)", name)
    splits = {SPLITS[part] for part in map(str.casefold, parts) if part in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def _check_understood(root: Path, found: Walk) -> None:
    """Raises DataError if classes only contain the same folders, or if folders are named like splits."""
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for above, _, name in (folder.rpartition("/") for folder in found.folders):
        inner[above].add(_composed(name))
    own = {path.rpartition("/")[0] for path in found.files}
    classes = sorted(folder for folder in found.folders if "/" not in folder)
    bare = [folder for folder in classes if folder in inner and folder not in own]
    unclear = [folder for folder in bare if len(inner[folder]) > 1 and inner[folder] == inner[classes[0]]]
    named = {_split_of(folder) for folder in classes}
    if split_rules() > 2 and "train" in named and None not in named and len(named) > 1:  # such as trainA and testA
        unclear = classes
    if len(unclear) < max(2, len(classes)):
        # A class of vehicles may contain a folder named train beside others.
        folders = sorted(folder for folder in inner if folder and inner[folder]) if split_rules() > 2 else ()
        inside = {folder: {_split_of(name) for name in inner[folder]} for folder in folders}
        unclear = [
            f for f, splits in inside.items() if None not in splits or len(splits) > 2 or (f in bare and _split_of(f))
        ]
    if unclear:
        raise DataError(
            f"The folders {first_few(unclear)} of '{root}' may be splits or contain splits: expected {LAYOUT}. Name "
            f"the splits train, valid and test, or move the classes to '{root}/train'."
        )


def _classes(root: Path, split: str, found: Walk, least: int) -> tuple[tuple[str, ...], _Files]:
    """Returns classes, sorted by name, and images, sorted by path. Folders whose names look equal are one class."""
    above = [split] if split else []
    folders = [path.rpartition("/")[2] for path in found.folders if path.split("/")[:-1] == above]
    classes: dict[str, list[str]] = {name: [] for name in sorted(map(_composed, folders))}
    if len(classes) < least:
        received = f"'{root / split}' has {len(classes)} class folders ({', '.join(classes) or 'none'})"
        remedy = f"Set data.path to a folder with {LAYOUT}."
        if split and not classes:
            remedy = f"Remove it if its images have no class, or move all classes to '{root}/train' if it is one."
        raise DataError(f"{received}: expected {least} or more. {remedy}")
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
