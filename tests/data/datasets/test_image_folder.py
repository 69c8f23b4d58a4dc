"""Folder layouts, and messages on layouts that cannot be used for training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.data import IndexedSplit, image_folder
from experiments.data.images.class_folders import class_folders
from experiments.data.sampling import held_out
from experiments.errors import DataError

MakePhotos = Callable[[Path, dict[str, int]], Path]
LAYOUT = "train/ and valid/ (and test/, if you like) with one folder per class in each, or one folder per class"


def names(split: Any) -> list[str]:
    assert isinstance(split, IndexedSplit)
    return [Path(name).name for name in split.source.names]


def test_class_folders_without_splits_are_split_by_name(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]
) -> None:
    make_photos(tmp_path, {"b": 20, "a ü": 20, "c": 20, ".hidden": 2})
    splits = image_folder(str(tmp_path), **options)
    held = held_out([f"{index:03}.jpg" for index in range(20)] * 3, 0.1).sum()
    assert splits.train.spec.class_names == ("a ü", "b", "c")
    assert (splits.validation.spec.num_examples, splits.train.spec.num_examples) == (held, 60 - held)
    assert splits.test is None
    assert not set(names(splits.train)) & set(names(splits.validation))


@pytest.mark.parametrize("validation", ["valid", "validation"])
def test_split_folders_are_used_unchanged(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any], validation: str
) -> None:
    folders = {"train/a": 3, "train/b": 4, f"{validation}/a": 1, f"{validation}/b": 2, "test/a": 2, "test/b": 1}
    splits = image_folder(str(make_photos(tmp_path, folders)), **options)
    assert splits.test is not None
    counts = [split.spec.class_counts for split in (splits.train, splits.validation, splits.test)]
    assert counts == [(3, 4), (1, 2), (2, 1)]


def test_training_images_are_held_out_if_validation_folder_is_missing(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]
) -> None:
    splits = image_folder(str(make_photos(tmp_path, {"train/a": 10, "train/b": 10})), **options)
    assert splits.train.spec.num_examples + splits.validation.spec.num_examples == 20


def test_limit_keeps_every_class(tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]) -> None:
    make_photos(tmp_path, {"train/a": 12, "train/b": 12, "valid/a": 2, "valid/b": 2})
    splits = image_folder(str(tmp_path), **{**options, "limit": 6})
    assert splits.train.spec.class_counts == (3, 3)
    assert splits.validation.spec.class_counts == (2, 2)
    assert splits.train.spec.digest != image_folder(str(tmp_path), **options).train.spec.digest


def test_hidden_files_and_other_types_are_ignored(tmp_path: Path, make_photos: MakePhotos) -> None:
    make_photos(tmp_path, {"train/a/deep": 1, "train/b": 2, "valid/a": 1, "valid/b": 1})
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / "train/b" / name).write_text("no image")
    (tmp_path / "train/b/000.jpg").rename(tmp_path / "train/b/000.JPEG")
    assert [file.path for file in class_folders(tmp_path, 0.1).train] == [
        "train/a/deep/000.jpg",
        "train/b/000.JPEG",
        "train/b/001.jpg",
    ]


def error_message(root: Path, fraction: float = 0.1) -> str:
    with pytest.raises(DataError) as raised:
        class_folders(root, fraction)
    return str(raised.value).replace(str(root), "ROOT")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert error_message(tmp_path / "no such ö") == (
        f"data.path='ROOT' is not a folder: expected {LAYOUT}. Set data.path=FOLDER."
    )


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            {"train/a": 1, "train/b": 1, "valid/a": 1, "valid/c": 1},
            "The class folders of 'ROOT' differ between splits: train/ has a, b; valid/ has a, c. Give both the same "
            "folders.",
        ),
        (
            {"train/a": 1, "train/b": 0, "valid/a": 1, "valid/b": 1},
            "The class folder 'ROOT/train/b' holds no image: expected files ending in .jpg, .jpeg, .png, .bmp, .gif, "
            ".webp. Add images or remove the folder.",
        ),
        (
            {"only": 3},
            f"'ROOT' has 1 class folders (only): expected 2 or more. Set data.path to a folder with {LAYOUT}.",
        ),
        (
            {"valid/a": 1, "valid/b": 1},
            f"'ROOT' has valid/ but no train/: expected {LAYOUT}. Add or rename the folder.",
        ),
        (
            {"train/a": 1, "train/b": 1, "valid/a": 1, "valid/b": 1, "validation/a": 1},
            "'ROOT' has valid/ and validation/: expected one of them. Remove or rename one.",
        ),
    ],
)
def test_invalid_layout_is_refused_with_reason(
    tmp_path: Path, make_photos: MakePhotos, folders: dict[str, int], message: str
) -> None:
    assert error_message(make_photos(tmp_path, folders)) == message


def test_empty_validation_split_is_an_error(tmp_path: Path, make_photos: MakePhotos) -> None:
    assert error_message(make_photos(tmp_path, {"a": 2, "b": 2}), fraction=0.0) == (
        "'ROOT' has no folder valid/, and data.validation_fraction=0 of 4 images leaves none for validation. "
        "Add the folder, or set data.validation_fraction=0.1 for images with different names."
    )
