"""Folder layouts found in practice, each with the classes and splits that a user expects, or the exact message."""

import hashlib
import io
import logging
import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from experiments.data import IndexedSplit, from_arrays, image_folder
from experiments.data.base import SPLIT_RULES, using_split_rules
from experiments.data.images.class_folders import class_folders
from experiments.data.images.headers import UnreadableImageError, read_header
from experiments.data.images.walk import walk
from experiments.data.inspection.findings import inspect_splits
from experiments.errors import DataError
from experiments.runs.predictor import image_files

Counts = dict[str, int]
LAYOUT = "train/ and valid/ (and test/, if you like) with one folder per class in each, or one folder per class"
ENDINGS = ".jpg, .jpeg, .png, .bmp, .gif, .webp"
PETS = {"cats": 3, "dogs": 4}
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
UNUSED = "outside of the class folders"


class Layout(NamedTuple):
    """A folder: numbers of images by folder, targets by link, and other files; and what is expected of it.

    splits: numbers of images by split and class; without "validation", the images of both splits by class.
    """

    images: Counts
    splits: dict[str, Counts] | str
    links: dict[str, str] = {}  # noqa: RUF012 -- never changed
    others: tuple[str, ...] = ()
    left_out: dict[str, str] = {}  # noqa: RUF012 -- never changed


def split(**folders: Counts) -> Counts:
    return {f"{name}/{kind}": count for name, counts in folders.items() for kind, count in counts.items()}


def named(first: str, second: str, third: str | None = None) -> Layout:
    """Returns a layout with training, validation and test folders of these names."""
    names = {"train": first, "validation": second} | ({"test": third} if third else {})
    images = {f"{name}/{kind}": count for name in names.values() for kind, count in PETS.items()}
    return Layout(images, dict.fromkeys(names, PETS))


def unclear(folders: str) -> str:
    return (
        f"The folders {folders} of 'ROOT' may be splits or contain splits: expected {LAYOUT}. Name the splits train, "
        "valid and test, or move the classes to 'ROOT/train'."
    )


TRAIN_VALID = {"train": PETS, "validation": PETS}
SPLIT = split(train=PETS, valid=PETS)
LAYOUTS = {
    "flat": Layout(PETS, {"train": PETS}),
    "flat, many classes": Layout({str(n): 2 for n in range(12)}, {"train": {str(n): 2 for n in range(12)}}),
    "flat, accents and blanks": Layout({"a ü": 2, "b [c], d": 2}, {"train": {"a ü": 2, "b [c], d": 2}}),
    "flat, nested folders": Layout({"cats/2019/may": 2, "cats/2020": 1, "dogs": 4}, {"train": PETS}),
    "flat, one common folder in each class": Layout({"cats/images": 3, "dogs/images": 4}, {"train": PETS}),
    "flat, the same folders beside images": Layout(
        {"cats/a": 1, "cats/b": 1, "dogs/a": 2, "dogs/b": 1, "cats": 1, "dogs": 1}, {"train": PETS}
    ),
    "flat, one name for all images": Layout(
        {f"{k}/s{n}": 1 for k in "ab" for n in range(30)} | {"a/x": 1}, {"train": {"a": 31, "b": 30}}
    ),
    "train, valid": named("train", "valid"),
    "train, validation, test": named("train", "validation", "test"),
    "train, val": named("train", "val"),
    "train, dev, test": named("train", "dev", "test"),
    "Training, Testing, validation": named("Training", "validation", "Testing"),
    "TRAIN, VAL": named("TRAIN", "VAL"),
    "seg_train, seg-val, seg test": named("seg_train", "seg-val", "seg test"),
    "train.v1, valid.v1": named("train.v1", "valid.v1"),
    "training_set, test_set only": Layout(split(training_set=PETS, test_set=PETS), {"train": PETS, "test": PETS}),
    "TrainSet, TestSet": Layout(split(TrainSet=PETS, TestSet=PETS), {"train": PETS, "test": PETS}),
    "train2017, val2017": named("train2017", "val2017"),
    "trainset, devset, testset": named("trainset", "devset", "testset"),
    "train, images-val beside others": Layout(
        split(train=PETS) | {f"images-val/{kind}": count for kind, count in PETS.items()} | {"notes": 1},
        TRAIN_VALID,
        left_out={"notes/0.jpg": UNUSED},
    ),
    "train, toy-train": Layout(
        split(train=PETS) | {"toy-train/cats": 1}, {"train": PETS}, left_out={"toy-train/cats/0.jpg": UNUSED}
    ),
    "a class with a part like a split": Layout({"toy-train": 2, "bus": 3}, {"train": {"bus": 3, "toy-train": 2}}),
    "classes with parts like one split": Layout(
        {"toy-train": 2, "steam-train": 3}, {"train": {"steam-train": 3, "toy-train": 2}}
    ),
    "classes with parts like splits": Layout(
        {"test-tube": 2, "crash-test/a": 1, "crash-test": 1, "bus": 3},
        {"train": {"bus": 3, "crash-test": 2, "test-tube": 2}},
    ),
    "a folder train of a class": Layout(
        {"vehicles/train": 2, "vehicles/bus": 1, "animals/cat": 2, "animals/dog": 2},
        {"train": {"animals": 4, "vehicles": 3}},
    ),
    "TrainSet, TestSet beside a folder of the system": Layout(
        split(TrainSet=PETS, TestSet=PETS) | {"__MACOSX/cats": 1},
        {"train": PETS, "test": PETS},
        left_out={"__MACOSX": "hidden"},
    ),
    "train only": Layout(split(train=PETS), {"train": PETS}),
    "train, with the same folders in each class": Layout(
        {f"train/{k}/{s}": 2 for k in PETS for s in "ab"}, {"train": {"cats": 4, "dogs": 4}}
    ),
    "training is part of a word": Layout({"trains": 2, "validated": 3}, {"train": {"trains": 2, "validated": 3}}),
    "names of two splits in one": Layout({"train-test": 2, "other": 3}, {"train": {"other": 3, "train-test": 2}}),
    "other folders beside the splits": Layout(
        SPLIT | {"masks/cats": 1}, TRAIN_VALID, left_out={"masks/cats/0.jpg": UNUSED}
    ),
    "images outside of class folders": Layout(
        SPLIT | {"train": 1, ".": 1}, TRAIN_VALID, left_out={"train/0.jpg": UNUSED, "0.jpg": UNUSED}
    ),
    "hidden at every level": Layout(
        SPLIT | {".git": 1, "train/.trash": 1, "train/cats/.ipynb_checkpoints": 2, "train/cats/deep/.thumbnails": 1},
        TRAIN_VALID,
        others=("train/cats/._0.jpg", "train/cats/.DS_Store"),
        left_out={
            **dict.fromkeys(
                (".git", "train/.trash", "train/cats/.ipynb_checkpoints", "train/cats/deep/.thumbnails"), "hidden"
            ),
            "train/cats/._0.jpg": "hidden",
            "train/cats/.DS_Store": "without the extension of an image",
        },
    ),
    "hidden in a flat folder": Layout(
        PETS | {".cache/a": 1, "__MACOSX/cats": 1}, {"train": PETS}, left_out={".cache": "hidden", "__MACOSX": "hidden"}
    ),
    "other files": Layout(
        SPLIT,
        TRAIN_VALID,
        others=("README.md", "train/labels.csv", "train/cats/0.txt"),
        left_out=dict.fromkeys(
            ("README.md", "train/labels.csv", "train/cats/0.txt"), "without the extension of an image"
        ),
    ),
    "a folder with the name of an image": Layout(PETS | {"cats/scans.png": 2}, {"train": {"cats": 5, "dogs": 4}}),
    "splits are links": Layout(
        {f"../here/{k}": n for k, n in PETS.items()} | split(valid=PETS), TRAIN_VALID, {"train": "../here"}
    ),
    "splits are links to a folder beside them": Layout(
        {f"all/{k}": n for k, n in PETS.items()} | split(valid=PETS),
        TRAIN_VALID,
        {"train": "all"},
        left_out={"all": "linked again"},
    ),
    "classes are links": Layout({"../here": 3, "dogs": 4}, {"train": PETS}, {"cats": "../here"}),
    "images are links to one folder": Layout(
        split(valid=PETS) | {"train/dogs": 4, "all": 3},
        TRAIN_VALID,
        {f"train/cats/{n}.jpg": f"../../all/{n}.jpg" for n in range(3)},
        left_out={f"all/{n}.jpg": UNUSED for n in range(3)},
    ),
    "a link to the folder above": Layout(
        PETS, {"train": PETS}, {"cats/up": ".."}, left_out={"cats/up": "linked again"}
    ),
    "two links to folders above": Layout(
        SPLIT,
        TRAIN_VALID,
        {"train/cats/up": "..", "train/dogs/up": "../..", "valid/dogs/far": "../../.."},
        left_out=dict.fromkeys(("train/cats/up", "train/dogs/up", "valid/dogs/far"), "linked again"),
    ),
    "a link to another class": Layout(
        PETS, {"train": PETS}, {"cats/a": "../dogs"}, left_out={"cats/a": "linked again"}
    ),
    "a link to an image of another split": Layout(
        SPLIT,
        TRAIN_VALID,
        {"valid/cats/a.jpg": "../../train/cats/0.jpg"},
        left_out={"valid/cats/a.jpg": "linked again"},
    ),
    "two links to one folder": Layout(
        {"../here": 3, "dogs": 4},
        {"train": {"cats": 3, "dogs": 4}},
        {"cats": "../here", "dogs/again": "../../here"},
        left_out={"dogs/again": "linked again"},
    ),
    "links without target": Layout(
        PETS,
        {"train": PETS},
        {"cats/gone.jpg": "nowhere", "cats/self.jpg": "self.jpg", "cats/self": "self"},
        left_out={
            "cats/gone.jpg": "not a regular file",
            "cats/self.jpg": "Too many levels of symbolic links",
            "cats/self": "Too many levels of symbolic links",
        },
    ),
    "a pipe": Layout(
        PETS, {"train": PETS}, others=("cats/pipe.jpg|",), left_out={"cats/pipe.jpg": "not a regular file"}
    ),
    "accents composed in one split and decomposed in the other": Layout(
        split(train={COMPOSED: 2, "tea": 3}, valid={DECOMPOSED: 1, "tea": 1}),
        {"train": {COMPOSED: 2, "tea": 3}, "validation": {COMPOSED: 1, "tea": 1}},
    ),
    "accents composed and decomposed in one folder": Layout(
        {COMPOSED: 2, DECOMPOSED: 1, "tea": 3}, {"train": {COMPOSED: 3, "tea": 3}}
    ),
    "other image formats": Layout(
        PETS,
        {"train": {"cats": 8, "dogs": 4}},
        others=("cats/a.PNG", "cats/a.bmp", "cats/a.gif", "cats/a.webp", "cats/a.JPEG", "cats/a.tif"),
        left_out={"cats/a.tif": "without the extension of an image"},
    ),
    # Refused
    "one class": Layout(
        {"only": 3}, f"'ROOT' has 1 class folders (only): expected 2 or more. Set data.path to a folder with {LAYOUT}."
    ),
    "no folder": Layout(
        {".": 3}, f"'ROOT' has 0 class folders (none): expected 2 or more. Set data.path to a folder with {LAYOUT}."
    ),
    "test images of a competition, without classes": Layout(
        split(train=PETS) | {"test": 3}, {"train": PETS}, left_out={f"test/{n}.jpg": UNUSED for n in range(3)}
    ),
    "a split without class folders": Layout(
        split(train=PETS) | {"valid": 3},
        "'ROOT/valid' has 0 class folders (none): expected 2 or more. Remove it if its images have no class, or move "
        "all classes to 'ROOT/train' if it is one.",
    ),
    "a class named train": Layout(
        {"bus": 2, "train": 3},
        "'ROOT/train' has 0 class folders (none): expected 2 or more. Remove it if its images have no class, or move "
        "all classes to 'ROOT/train' if it is one.",
    ),
    "an empty class": Layout(
        {"cats": 3, "dogs": 0},
        f"The class folder 'ROOT/dogs' holds no image: expected files ending in {ENDINGS}. Add images or remove the "
        "folder.",
    ),
    "a class of hidden images": Layout(
        {"cats": 3, "dogs/.hidden": 3},
        f"The class folder 'ROOT/dogs' holds no image: expected files ending in {ENDINGS}. Add images or remove the "
        "folder.",
    ),
    "a class in one split": Layout(
        SPLIT | {"valid/eels": 1},
        "The class folders of 'ROOT' differ between splits: train/ has cats, dogs; valid/ has cats, dogs, eels. Give "
        "both the same folders.",
    ),
    "Testing without Training": Layout(
        split(Testing=PETS), f"'ROOT' has Testing/ but no train/: expected {LAYOUT}. Add or rename the folder."
    ),
    "val and validation": Layout(
        SPLIT | split(val=PETS), "'ROOT' has val/ and valid/: expected one of them. Remove or rename one."
    ),
    "Train and train": Layout(
        SPLIT | split(Train=PETS), "'ROOT' has Train/ and train/: expected one of them. Remove or rename one."
    ),
    "unknown split names": Layout(
        split(entrenamiento=PETS, prueba=PETS),
        unclear("entrenamiento, prueba"),
    ),
    "folds": Layout(
        {f"fold{n}/{kind}": 2 for n in range(5) for kind in PETS},
        unclear("fold0, fold1, fold2 and 2 more"),
    ),
    "splits below classes": Layout(
        {f"{kind}/{part}": 2 for kind in PETS for part in ("train", "test")},
        unclear("cats, dogs"),
    ),
    "other splits below each class": Layout(
        {"cats/train": 2, "cats/test": 2, "dogs/train": 2, "dogs/test": 2, "dogs/val": 2}, unclear("cats, dogs")
    ),
    "splits below some classes": Layout(
        {"cats/train": 2, "cats/test": 2, "dogs/2019": 2, "dogs": 1, "eels": 3}, unclear("cats")
    ),
    "splits and masks below classes": Layout(
        {f"{kind}/{part}": 2 for kind in PETS for part in ("my_train", "my_test", kind)}, unclear("cats, dogs")
    ),
    "one split below a class": Layout({"cats/Test": 2, "cats": 2, "dogs": 2}, unclear("cats")),
    "splits one folder deeper": Layout(
        {f"Data/{part}/{kind}": 2 for kind in PETS for part in ("train", "test")} | {"Docs": 1}, unclear("Data")
    ),
    "splits two folders deeper": Layout(
        {f"my/data/{part}/{kind}": 2 for kind in PETS for part in ("train", "val")} | {"docs": 1}, unclear("my/data")
    ),
    "seg_train, seg_test, and images without classes": Layout(
        split(seg_train=PETS, seg_test=PETS) | {"seg_pred": 1},
        {"train": PETS, "test": PETS},
        left_out={"seg_pred/0.jpg": UNUSED},
    ),
    "train_set, test_set beside others": Layout(
        {f"{part}_set/{kind}": 2 for kind in PETS for part in ("train", "test")} | {"masks/old": 1},
        unclear("test_set, train_set"),
    ),
    "two folders like train": Layout(
        {"train-clean/a": 2, "train-clean/b": 2, "train-noisy/a": 2, "train-noisy/c": 2},
        unclear("train-clean, train-noisy"),
    ),
    "classes and splits in one name": Layout(
        dict.fromkeys(("trainA", "trainB", "testA", "testB"), 2), unclear("testA, testB, trainA and 1 more")
    ),
    "classes and splits in one name, with underscores": Layout(
        {f"{kind}_{part}": 2 for kind in PETS for part in ("train", "val")},
        unclear("cats_train, cats_val, dogs_train and 1 more"),
    ),
    "TrainSet, TestSet of other classes": Layout(
        {"TrainSet/a": 2, "TrainSet/b": 2, "TestSet/a": 2, "TestSet/c": 2},
        "The class folders of 'ROOT' differ between splits: TrainSet/ has a, b; TestSet/ has a, c. Give both the same "
        "folders.",
    ),
}


def encoded(seed: int, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def webp(mode: str, frames: int) -> bytes:
    stream, colours = io.BytesIO(), [(10, 20, 30, 128), (200, 20, 30, 128)][:frames]
    first, *others = (Image.new("RGBA", (3, 2), colour).convert(mode) for colour in colours)
    first.save(stream, "WEBP", lossless=True, save_all=frames > 1, append_images=others)
    return stream.getvalue()


def build(root: Path, layout: Layout) -> Path:
    root.mkdir(parents=True)
    seed = iter(range(10_000))
    for folder, count in layout.images.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / folder / f"{index}.jpg").write_bytes(encoded(next(seed)))
    for path, target in layout.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    for name in layout.others:
        if name.endswith("|"):
            os.mkfifo(root / name[:-1])
            continue
        kinds = {".PNG": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP", ".JPEG": "JPEG", ".tif": "TIFF"}
        kind = kinds.get(Path(name).suffix)
        (root / name).write_bytes(encoded(next(seed), kind) if kind else b"other")
    return root


def held_out_names(paths: list[str], fraction: float) -> set[str]:
    """Returns the paths below the class folders whose hash is small, computed without the package."""
    positions = {
        path: int(hashlib.sha256(unicodedata.normalize("NFC", path).encode()).hexdigest()[:8], 16) / 2**32
        for path in paths
    }
    chosen = {path for path, position in positions.items() if position < fraction}
    return chosen or {min(positions, key=lambda path: positions[path])}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_gives_expected_classes_and_splits(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    root = build(tmp_path / "photos ü", layout)
    if isinstance(layout.splits, str):
        with pytest.raises(DataError) as raised:
            class_folders(root, 0.1)
        assert str(raised.value).replace(str(root), "ROOT") == layout.splits
        return
    found = class_folders(root, 0.1)
    counts = {
        split: dict(Counter(found.class_names[file.label] for file in files)) for split, files in found.splits().items()
    }
    assert list(found.class_names) == sorted(layout.splits["train"])
    assert found.held_out == ("validation" not in layout.splits)
    if found.held_out:
        tops = {file.path.partition("/")[0] for file in found.train}
        depth = 1 if tops & set(found.class_names) else 2
        held = held_out_names([file.path.split("/", depth)[depth] for file in (*found.train, *found.validation)], 0.1)
        assert {file.path.split("/", depth)[depth] for file in found.validation} == held
        counts["train"] = dict(Counter(counts["train"]) + Counter(counts.pop("validation")))
    assert counts == layout.splits
    assert found.left_out == layout.left_out
    paths = [file.path for files in found.splits().values() for file in files]
    assert len(paths) == len({os.path.realpath(root / path) for path in paths})


@pytest.mark.parametrize("name", [name for name in LAYOUTS if not isinstance(LAYOUTS[name].splits, str)])
def test_prediction_walks_like_training(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    root = build(tmp_path / "photos", LAYOUTS[name])
    trained = class_folders(root, 0.1)
    unused = {path for path, reason in trained.left_out.items() if reason == UNUSED}
    listed = {file.path for files in trained.splits().values() for file in files} | unused
    predicted = [path.relative_to(root).as_posix() for path in image_files(root)]
    # Links to folders beside each other may be followed in another order: the same files, but other paths to them.
    assert {os.path.realpath(root / path) for path in predicted} == {os.path.realpath(root / path) for path in listed}
    assert predicted == sorted(predicted, key=lambda path: path.split("/"))
    assert len(caplog.messages) <= 1


def test_rules_of_version_1_split_as_before(tmp_path: Path) -> None:
    """The expected files are those of the base names that release 0.3 held out, and its classes."""
    images = {"a/sub": 30, "b": 30, "a/.hidden": 1}
    root = build(tmp_path / "flat", Layout(images, {}, others=("b/0.webp",)))
    base = {
        f"{index}.jpg": int(hashlib.sha256(f"{index}.jpg".encode()).hexdigest()[:8], 16) / 2**32 for index in range(30)
    }
    (root / "a" / "link").symlink_to("../b")
    (root / ".thumbnails").mkdir()
    every = ["a/.hidden/0.jpg", *(f"{folder}/{name}" for folder in ("a/link", "a/sub", "b") for name in base)]
    expected = {path for path in every if base[path.rpartition("/")[2]] < 0.2}
    with using_split_rules(1):
        old = class_folders(root, 0.2)
    assert {file.path for file in old.validation} == expected
    assert len(old.train) == 91 - len(expected)
    new = class_folders(root, 0.2)
    assert {file.path for file in new.validation} != expected
    assert len(new.train) + len(new.validation) == 61
    named = build(tmp_path / "named", Layout(split(Training=PETS, Testing=PETS, val=PETS), {}))
    with using_split_rules(1):
        assert class_folders(named, 0.2).class_names == ("Testing", "Training", "val")
    mixed = {"cats/train": 1, "cats/test": 1, "dogs/val": 1}
    for name, images, classes in (
        ("below", mixed, ("cats", "dogs")),
        ("beside", mixed | {"seg_train/bus": 1, "seg_train/car": 1}, ("bus", "car")),
        ("deeper", {"toy-bus/train": 1, "toy-bus/test": 1, "eels": 1}, ("eels", "toy-bus")),
        ("joined", {"TrainSet/a": 1, "TestSet/b": 1}, ("TestSet", "TrainSet")),
    ):
        with using_split_rules(2):
            assert class_folders(build(tmp_path / name, Layout(images, {})), 1).class_names == classes
    accents = build(tmp_path / "accents", Layout({DECOMPOSED: 2, COMPOSED: 2}, {}))
    with using_split_rules(1):
        assert class_folders(accents, 0.2).class_names == (DECOMPOSED, COMPOSED)


GIF = b"GIF89a\1\0\1\0\x80\0\0%b\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
RELEASE_0_3 = [(67, "e5c98821598107ab", 1), (14, "bbc38dde1046a80e", 1)]


def test_digests_of_version_1_are_those_of_earlier_releases(tmp_path: Path, options: dict[str, Any]) -> None:
    """The digests were printed by release 0.3 for these files, whose bytes do not depend on installed libraries."""
    for number in range(80):
        file = tmp_path / "photos" / "ab"[number % 2] / f"s{number // 40}" / f"{number % 40}.gif"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(GIF % bytes([number, 0, 0]))
    (tmp_path / "photos/a/s0/val.gif").write_bytes(GIF % b"abc")
    (tmp_path / "photos/a/s2").mkdir()
    with using_split_rules(1):
        splits = image_folder(str(tmp_path / "photos"), **options)
    specs = [splits.train.spec, splits.validation.spec]
    assert [(spec.num_examples, spec.digest[:16], spec.split_rules) for spec in specs] == RELEASE_0_3
    new = image_folder(str(tmp_path / "photos"), **options).train.spec
    assert (new.split_rules, new.digest == specs[0].digest) == (SPLIT_RULES, False)


def test_left_out_files_are_counted_by_reason(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    layout = Layout(SPLIT | {"masks": 4, ".git": 1}, {}, {"train/cats/up": ".."}, ("a.txt", "train/cats/._1.jpg"))
    root = build(tmp_path / "photos", layout)
    (root / "train/cats/photo.jfif").write_bytes(encoded(99))
    caplog.set_level(logging.INFO)
    splits = image_folder(str(root), **options)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"Left out below '{root}': 2 hidden (.git, train/cats/._1.jpg); 4 outside of the class folders "
            "(masks/0.jpg, masks/1.jpg, masks/2.jpg and 1 more); 1 without the extension of an image "
            f"(train/cats/photo.jfif); 1 linked again (train/cats/up). Expected regular files that end "
            f"in {ENDINGS}",
        )
    ]
    (unused,) = (one for one in inspect_splits(splits, decode=False).findings if one.title == "Not used")
    assert len(unused.details) == 9
    assert "a.txt (without the extension of an image)" in unused.details


def test_hidden_files_are_no_warning(tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    root = build(tmp_path / "photos", Layout(SPLIT | {".git": 1}, {}, others=("a.txt", "train/.DS_Store")))
    caplog.set_level(logging.INFO)
    image_folder(str(root), **options)
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_each_file_is_read_once(tmp_path: Path, options: dict[str, Any]) -> None:
    layout = LAYOUTS["images are links to one folder"]
    root = build(tmp_path / "photos", layout._replace(others=("a.txt", "train/cats/pipe.jpg|")))
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(root) in str(arguments[0]):
            opened.append(os.path.realpath(arguments[0]))

    sys.addaudithook(watch)  # cannot be removed
    try:
        image_folder(str(root), **options)
    finally:
        watching = False
    images = {os.path.realpath(path) for path in root.rglob("*.jpg") if path.is_file()}
    assert sorted(opened) == sorted([*images, str(root / "a.txt")])


def test_names_that_are_not_utf8_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    root = build(tmp_path / "photos", Layout(PETS, {}))
    Path(os.fsdecode(os.fsencode(root / "cats") + b"/caf\xe9.jpg")).write_bytes(encoded(99))
    with pytest.raises(DataError) as raised:
        image_folder(str(root), **options)
    assert str(raised.value) == (
        f"1 image of 8 below '{root}' cannot be read: cats/caf\\udce9.jpg (a name that is not UTF-8). Remove or "
        "replace them, or set data.on_corrupt=skip to leave them out."
    )
    left = image_folder(str(root), **{**options, "on_corrupt": "skip"})
    assert left.train.spec.num_examples + left.validation.spec.num_examples == 7
    assert len(image_files(root)) == 8
    (root / "dogs").rename(os.fsdecode(os.fsencode(root) + b"/d\xf6gs"))
    assert class_folders(root, 0.1).class_names == ("cats", "d\\xf6gs")


def test_all_images_of_other_data_are_taken(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    whole = {**options, "validation_fraction": 1.0}
    root = build(tmp_path / "photos", Layout({"cats": 5}, {}))
    assert image_folder(str(root), **whole).validation.spec.num_examples == 5
    two = image_folder(str(build(tmp_path / "two", Layout(split(train=PETS), {}))), **{**whole, "limit": 1})
    assert two.validation.spec.class_counts == (1, 0)
    assert caplog.messages == []


def test_classes_without_training_examples_are_named(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one_image = build(tmp_path / "photos", Layout({"cats": 40, "dogs": 1}, {}))
    # The hash of this name is small, so that it is held out.
    name = min((f"{n}.jpg" for n in range(1000)), key=lambda name: hashlib.sha256(name.encode()).digest())
    (one_image / "dogs/0.jpg").rename(one_image / "dogs" / name)
    image_folder(str(one_image), **options)
    labels = np.array([1, 2, 3, 255])
    inputs = np.zeros((4, 2, 2, 1), np.uint8)
    from_arrays((inputs, labels), (inputs, labels), batch_size=2, shuffle=False, seed=0)
    from_arrays((inputs, labels % 3), (inputs, labels % 3), batch_size=2, shuffle=False, seed=0)
    assert caplog.messages == [
        f"No training examples in '{one_image}' for 1 class, which no model will learn: dogs",
        "No training examples in 'arrays' for 252 classes, which no model will learn: 0, 4, 5 and 249 more",
    ]


def test_images_of_16_bits_are_named(tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    root = build(tmp_path / "photos", Layout({**PETS, "cats": 30}, {}))
    grey = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    Image.fromarray(grey).save(root / "dogs/a.png")
    (root / "dogs/b.png").write_bytes(tf.io.encode_png(np.stack([grey] * 3, axis=-1)).numpy())
    for _ in range(2):  # the second time with the stored results of the scan
        caplog.clear()
        image_folder(str(root), **options)
        assert caplog.messages == [
            f"Only the upper 8 of 16 bits per channel are used in 2 images: {root}/dogs/a.png, {root}/dogs/b.png. "
            "Convert 12-bit images to 8 bits"
        ]


def test_webp_is_decoded_as_by_pillow(tmp_path: Path, options: dict[str, Any]) -> None:
    root = build(tmp_path / "photos", Layout({"cats": 1, "dogs": 40}, {}))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures: dict[str, dict[str, Any]] = {
        "a.webp": {"lossless": True},
        "b.jpg": {"quality": 90},
        "c.webp": {"lossless": True, "exif": exif},
    }
    for number, (name, how) in enumerate(pictures.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 12, 3), np.uint8)
        Image.fromarray(pixels if number < 2 else pixels.transpose(1, 0, 2)).save(root / "cats" / name, "WEBP", **how)
    splits = image_folder(str(root), **options)
    assert isinstance(splits.train, IndexedSplit)
    source = splits.train.source
    positions = [at for at, name in enumerate(source.names) if Path(name).name in pictures]
    (batch,) = source.batches(np.array(positions), 3, 1).as_numpy_iterator()
    for image, position in zip(batch, positions, strict=True):
        with Image.open(source.names[position]) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (webp("RGBA", 1), "a WebP with transparency or animation .others can be decoded."),
        (webp("RGB", 2), "a WebP with transparency or animation .others can be decoded."),
        (encoded(0, "WEBP")[:-3], "truncated|header"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not a JPEG, PNG, BMP, GIF or WebP image"),
    ],
)
def test_webp_that_cannot_be_decoded_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read_header(content)


def test_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build(tmp_path / "photos", Layout(PETS | {"cats/closed": 1}, {}))
    listed = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert walk(root).left_out == {"cats/closed": "Permission denied"}
