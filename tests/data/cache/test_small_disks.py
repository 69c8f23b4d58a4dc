"""Caches on full and on read-only disks; each test mounts its own file system in memory."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.disks import mounted, tmpfs

from experiments.data import Splits, image_folder, named_errors
from experiments.data.cache.listing import entries
from experiments.data.cache.paths import packs_folder
from experiments.errors import DataError

MakePhotos = Callable[[Path, dict[str, int]], Path]
FOLDERS = {"train/cats": 6, "train/dogs": 5, "valid/cats": 3, "valid/dogs": 3}
DISK = 100 * 2**20  # bytes; more than the space that packs leave free


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", *tmpfs(str(DISK)))


@pytest.fixture
def read_only(tmp_path: Path, disk: Path) -> Iterator[Path]:
    """Mounts `disk` a second time, read-only."""
    yield from mounted(tmp_path / "read-only", "-o", "bind,ro", str(disk))


@pytest.fixture
def photos(tmp_path: Path, make_photos: MakePhotos) -> Path:
    return make_photos(tmp_path / "photos", FOLDERS)


@pytest.fixture(name="options")
def larger(options: dict[str, Any]) -> dict[str, Any]:
    """Enlarges the images to several memory pages each."""
    return {**options, "image_size": [80, 70]}


def read(splits: Splits, epoch: int = 0) -> list[np.ndarray]:
    with named_errors(splits):
        return [inputs.numpy() for inputs, _ in splits.train.epoch(epoch)]


def assert_equal(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    for batch, expected in zip(left, right, strict=True):
        np.testing.assert_array_equal(batch, expected)


def fill(disk: Path) -> Path:
    """Fills the disk with a file, which it returns."""
    file = disk / "other"
    with file.open("wb", buffering=0) as stream:
        stream.write(bytes(DISK))  # writes as much as fits
        with pytest.raises(OSError, match="No space left on device"):
            stream.write(bytes(2**20))
    return file


@pytest.mark.parametrize("required", [True, False])
def test_disk_that_fills_up_while_writing_a_pack_is_an_error_or_a_warning(
    photos: Path, disk: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture, required: bool
) -> None:
    expected = read(image_folder(str(photos), **options))
    kept = {**options, "cache": "disk", "cache_dir": str(disk / "cache"), "cache_required": required}
    splits = image_folder(str(photos), **kept)
    batches = splits.train.epoch(0)  # starts writing the pack
    other = fill(disk)
    with caplog.at_level(logging.WARNING):
        if required:
            with (
                pytest.raises(DataError, match=r"cannot keep .*: No space left on device\. Set data\."),
                named_errors(splits),
            ):
                list(batches)
        else:
            assert_equal([inputs.numpy() for inputs, _ in batches], expected)
            assert_equal(read(splits), expected)
            assert [message.split(": ")[-1] for message in caplog.messages] == [
                "No space left on device. Training continues and decodes in every epoch."
            ]
    assert list(packs_folder(kept["cache_dir"]).iterdir()) == []
    other.unlink()
    assert_equal(read(image_folder(str(photos), **kept)), expected)
    assert_whole(kept["cache_dir"])


def assert_whole(cache_dir: str, count: int = 1) -> None:
    until = time.monotonic() + 30
    while [entry.state for entry in entries(cache_dir)] != ["complete"] * count:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_full_disk_is_reported_before_training(photos: Path, disk: Path, options: dict[str, Any]) -> None:
    (disk / "cache").mkdir()
    fill(disk)
    with pytest.raises(DataError, match=r"cannot keep .*: (No space left|0 MB are needed and 0 MB are free)"):
        image_folder(str(photos), **{**options, "cache": "disk", "cache_dir": str(disk / "cache")})


def packed(photos: Path, disk: Path, options: dict[str, Any]) -> Path:
    read(image_folder(str(photos), **{**options, "cache": "disk", "cache_dir": str(disk / "cache")}))
    assert_whole(str(disk / "cache"))
    (entry,) = entries(str(disk / "cache"))
    return entry.path


def pack_validation(photos: Path, disk: Path, options: dict[str, Any]) -> None:
    splits = image_folder(str(photos), **{**options, "cache": "disk", "cache_dir": str(disk / "cache")})
    for _ in splits.validation.epoch(0):
        pass
    assert_whole(str(disk / "cache"), count=2)


def from_read_only(read_only: Path, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**options, "cache": "disk", "cache_dir": str(read_only / "cache"), **changes}


def test_read_only_pack_is_read(
    photos: Path, disk: Path, read_only: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Users can share a read-only cache. There is no pack of validation, which causes one warning."""
    expected = read(image_folder(str(photos), **options), 1)
    packed(photos, disk, options)
    with caplog.at_level(logging.WARNING):
        splits = image_folder(str(photos), **from_read_only(read_only, options, cache_required=False))
        for file in (photos / "train").rglob("*.jpg"):
            file.unlink()
        assert_equal(read(splits, 1), expected)
    assert [message.split("'")[3] for message in caplog.messages] == ["validation"]


@pytest.mark.parametrize("begun", [True, False])
def test_read_only_cache_is_reported_with_reason(
    photos: Path, disk: Path, read_only: Path, options: dict[str, Any], begun: bool
) -> None:
    """Covers caches with and without packs of other data."""
    if begun:
        packed(photos, disk, {**options, "limit": 4})
    expected = read(image_folder(str(photos), **options))
    with pytest.raises(DataError, match=r"cannot keep .* of 'train' \(0 MB\): Read-only file system\. Set data\."):
        image_folder(str(photos), **from_read_only(read_only, options))
    splits = image_folder(str(photos), **from_read_only(read_only, options, cache_required=False))
    for _ in range(2):
        assert_equal(read(splits), expected)


def test_images_of_corrupt_read_only_pack_are_decoded(
    photos: Path, disk: Path, read_only: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected = read(image_folder(str(photos), **options), 1)
    data = packed(photos, disk, options) / "data.npy"
    splits = image_folder(str(photos), **from_read_only(read_only, options, cache_required=False))
    with data.open("r+b") as file:
        file.seek(50_000)
        file.write(b"damage")
    caplog.clear()  # removes the warning about validation
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert_equal(read(splits, 1), expected)
    assert len(caplog.messages) == 2
    assert "is corrupt: unreadable rows are decoded" in caplog.messages[0]
    assert caplog.messages[1].endswith("Read-only file system. Training continues and decodes in every epoch.")
    os.truncate(data, 1000)
    splits = image_folder(str(photos), **from_read_only(read_only, options, cache_required=False))
    assert_equal(read(splits, 1), expected)


def test_corrupt_read_only_pack_is_an_error_in_next_epoch_if_required(
    photos: Path, disk: Path, read_only: Path, options: dict[str, Any]
) -> None:
    data = packed(photos, disk, options) / "data.npy"
    pack_validation(photos, disk, options)
    expected = read(image_folder(str(photos), **options), 1)
    splits = image_folder(str(photos), **from_read_only(read_only, options))
    with data.open("r+b") as file:
        file.seek(50_000)
        file.write(b"damage")
    assert_equal(read(splits, 1), expected)
    with pytest.raises(DataError, match=r"cannot keep .*: Read-only file system\."):
        read(splits, 2)
