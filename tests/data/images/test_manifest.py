"""Results of a scan, and equal images in several splits."""

import gc
import hashlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.data import IndexedSplit, image_folder
from experiments.data.images import manifest, scan
from experiments.data.images.headers import Header
from experiments.data.images.manifest import read_manifest
from experiments.data.images.scan import Damage, FileState, ImageFile, Record
from experiments.errors import DataError

MakePhotos = Callable[[Path, dict[str, int]], Path]
FOLDERS = {"train/cats": 4, "train/dogs": 3, "valid/cats": 2, "valid/dogs": 2}


def listed(root: Path) -> list[ImageFile]:
    return [ImageFile(file.relative_to(root).as_posix(), 0) for file in sorted(root.rglob("*.jpg"))]


def test_record_contains_hash_header_and_state(tmp_path: Path, make_photos: MakePhotos) -> None:
    file = make_photos(tmp_path, {"ä": 1}) / "ä/000.jpg"
    (record,) = scan.scan(tmp_path, [ImageFile("ä/000.jpg", 3)])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record == Record("ä/000.jpg", 3, digest, Header("JPEG", 24, 20, "RGB", 1), FileState.of(file.stat()))


@pytest.mark.parametrize("slow", [0.0, 10.0], ids=["many threads", "one thread"])
def test_scan_keeps_order_of_files(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr(scan, "_SLOW", slow)
    monkeypatch.setattr(scan, "_CHUNK", 3)
    files = listed(make_photos(tmp_path, {"a": 9, "b": 8}))[::-1]
    (tmp_path / "a/004.jpg").write_bytes(b"")
    found = scan.scan(tmp_path, files)
    assert [item.path for item in found] == [file.path for file in files]
    assert [str(item) for item in found if isinstance(item, Damage)] == ["a/004.jpg (empty)"]


def test_missing_file_and_folder_are_reported_as_damage(tmp_path: Path, make_photos: MakePhotos) -> None:
    make_photos(tmp_path, {"a": 1})
    (tmp_path / "folder.jpg").mkdir()
    found = scan.scan(tmp_path, [ImageFile("a/gone.jpg", 0), ImageFile("folder.jpg", 0)])
    assert [str(item) for item in found] == ["a/gone.jpg (No such file or directory)", "folder.jpg (Is a directory)"]


def test_file_that_grows_while_read_is_reported_as_damage(tmp_path: Path, make_photos: MakePhotos) -> None:
    """A single scan may run between two writes, so the file is scanned five times."""
    file = make_photos(tmp_path, {"a": 1}) / "a/000.jpg"
    file.write_bytes(file.read_bytes() + bytes(20_000_000))
    stop = threading.Event()

    def grow() -> None:
        with file.open("ab") as stream:
            while not stop.is_set():
                stream.write(b"more")
                stream.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        found = [scan.scan(tmp_path, [ImageFile("a/000.jpg", 0)])[0] for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    assert "a/000.jpg (changed while it was read)" in map(str, found)


def test_image_in_two_splits_is_an_error(tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]) -> None:
    make_photos(tmp_path, FOLDERS)
    for number in range(3):
        shutil.copy(tmp_path / f"train/cats/00{number}.jpg", tmp_path / f"valid/dogs/copy{number}.png")
    shutil.copy(tmp_path / "valid/dogs/copy0.png", tmp_path / "valid/cats/again.jpg")
    with pytest.raises(DataError) as raised:
        image_folder(str(tmp_path), **options)
    assert str(raised.value) == (
        f"3 images below '{tmp_path}' are in more than one split, byte for byte: train/cats/000.jpg = "
        "valid/cats/again.jpg, train/cats/001.jpg = valid/dogs/copy1.png and 1 more. Scores on training images are "
        "misleading. Remove one of each, or set data.allow_leakage=true."
    )
    allowed = image_folder(str(tmp_path), **{**options, "allow_leakage": True})
    assert allowed.validation.spec.num_examples == 8


def test_image_twice_in_one_split_is_allowed(tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]) -> None:
    make_photos(tmp_path, FOLDERS)
    shutil.copy(tmp_path / "train/cats/000.jpg", tmp_path / "train/dogs/copy.jpg")
    assert image_folder(str(tmp_path), **options).train.spec.num_examples == 8


@pytest.mark.parametrize("limit", [None, 12])
def test_held_out_split_shares_no_image_with_training(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any], limit: int | None
) -> None:
    make_photos(tmp_path, {"a": 20, "b": 20})
    for number in range(20):
        shutil.copy(tmp_path / f"a/{number:03}.jpg", tmp_path / f"b/copy{number:03}.jpg")
    splits = image_folder(str(tmp_path), **{**options, "limit": limit})
    contents = [set(map(_content, _names(split))) for split in (splits.train, splits.validation)]
    assert not contents[0] & contents[1]
    counts = [split.spec.num_examples for split in (splits.train, splits.validation)]
    assert sum(counts) == 60 if limit is None else max(counts) <= limit
    assert _names(splits.train) == sorted(_names(splits.train))


def test_unused_images_are_named_in_warning(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    photo = make_photos(tmp_path, FOLDERS) / "train/cats/000.jpg"
    (tmp_path / "train/cats/notes.txt").write_text("no image")
    for name in ("train/cats/one.jfif", "train/stray.jpg", "train/dogs/none"):
        shutil.copy(photo, tmp_path / name)
    with caplog.at_level("WARNING"):
        image_folder(str(tmp_path), **options)
    assert caplog.messages == [
        f"Left out below '{tmp_path}': 2 without the extension of an image (train/cats/one.jfif, train/dogs/none); 1 "
        "outside of the class folders (train/stray.jpg). Expected regular files that end in .jpg, "
        ".jpeg, .png, .bmp, .gif, .webp"
    ]


def test_digest_is_equal_in_copied_folder(tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]) -> None:
    make_photos(tmp_path / "here", FOLDERS)
    before = image_folder(str(tmp_path / "here"), **options).train.spec.digest
    shutil.copytree(tmp_path / "here", tmp_path / "dort ü")
    for file in (tmp_path / "dort ü").rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert image_folder(str(tmp_path / "dort ü"), **options).train.spec.digest == before


@pytest.mark.real_data
def test_real_photos_are_readable_and_in_one_split_each(real_data: Path, options: dict[str, Any]) -> None:
    splits = image_folder(str(real_data / "cats_dogs"), **options)
    assert [split.spec.class_counts for split in (splits.train, splits.validation)] == [(400, 400), (100, 100)]
    for split in (splits.train, splits.validation):
        assert isinstance(split, IndexedSplit)
        assert len(set(map(_content, itertools.islice(_names(split), 20)))) == 20


def _names(split: Any) -> list[str]:
    assert isinstance(split, IndexedSplit)
    return list(split.source.names)


def _content(name: str) -> bytes:
    return Path(name).read_bytes()


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_collection_is_restored_after_scan(
    tmp_path: Path, make_photos: MakePhotos, monkeypatch: pytest.MonkeyPatch, collects: bool
) -> None:
    make_photos(tmp_path, {"a": 1})
    during: list[bool] = []

    def failing(root: Path, files: object) -> None:
        during.append(gc.isenabled())
        raise DataError("stopped")

    monkeypatch.setattr(manifest, "scan", failing)
    before = gc.isenabled()
    try:
        gc.enable() if collects else gc.disable()
        with pytest.raises(DataError, match="stopped"):
            read_manifest(tmp_path, {"train": [ImageFile("a/000.jpg", 0)]})
        assert gc.isenabled() == collects
    finally:
        gc.enable() if before else gc.disable()
    assert during == [False]
