"""A scan reads only files that have changed since the last scan."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.data import image_folder
from experiments.data.cache.paths import manifest_file
from experiments.data.images import scan_cache
from experiments.data.images.scan import ImageFile, scan
from experiments.data.images.scan_cache import cached_scan

MakePhotos = Callable[[Path, dict[str, int]], Path]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes results of files that were just written storable."""
    monkeypatch.setattr(scan_cache, "_SETTLED", -(10**9))


@pytest.fixture
def files(tmp_path: Path, make_photos: MakePhotos) -> list[ImageFile]:
    make_photos(tmp_path / "photos", {"ä": 3, "b": 2})
    found = sorted((tmp_path / "photos").rglob("*.jpg"))
    return [ImageFile(file.relative_to(tmp_path / "photos").as_posix(), 1) for file in found]


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the paths that are read."""
    read: list[str] = []

    def recording(root: Path, files: Any) -> Any:
        read.extend(file.path for file in files)
        return scan(root, files)

    monkeypatch.setattr(scan_cache, "scan", recording)
    return read


def test_second_scan_returns_same_records_without_reading(
    tmp_path: Path, files: list[ImageFile], read_paths: list[str]
) -> None:
    root, cache_file = tmp_path / "photos", tmp_path / "cache/one.json"
    first = cached_scan(root, files, cache_file, rescan=False)
    assert first == scan(root, files)
    read_paths.clear()
    assert cached_scan(root, files[::-1], cache_file, rescan=False) == first[::-1]
    assert read_paths == []
    assert cached_scan(root, files, cache_file, rescan=True) == first
    assert len(read_paths) == 5


def _rewrite(file: Path) -> None:
    """Changes one bit, but keeps size and modification time."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes() + b"x")
    other.replace(file)


@pytest.mark.parametrize("change", [_rewrite, _replace, lambda file: file.write_bytes(b""), Path.unlink])
def test_changed_file_is_read_again(
    tmp_path: Path, files: list[ImageFile], read_paths: list[str], change: Callable[[Path], Any]
) -> None:
    root, cache_file = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, cache_file, rescan=False)
    change(root / files[3].path)
    read_paths.clear()
    assert cached_scan(root, files, cache_file, rescan=False) == scan(root, files)
    assert read_paths == [files[3].path]


def test_recently_changed_file_is_not_stored(
    tmp_path: Path, files: list[ImageFile], read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_cache, "_SETTLED", 3600 * 10**9)
    for _ in range(2):
        cached_scan(tmp_path / "photos", files, tmp_path / "one.json", rescan=False)
    assert len(read_paths) == 10


@pytest.mark.parametrize("content", [b"", b"nonsense", b"0" * 64 + b"\n{}"])
def test_corrupt_scan_cache_is_ignored(tmp_path: Path, files: list[ImageFile], content: bytes) -> None:
    root, cache_file = tmp_path / "photos", tmp_path / "one.json"
    cache_file.write_bytes(content)
    assert cached_scan(root, files, cache_file, rescan=False) == scan(root, files)
    assert cache_file.stat().st_size > 500


def test_unwritable_scan_cache_reads_all_files(tmp_path: Path, files: list[ImageFile]) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    root, cache_file = tmp_path / "photos", tmp_path / "taken/one.json"
    assert cached_scan(root, files, cache_file, rescan=False) == scan(root, files)


def test_scan_of_fewer_files_keeps_other_records(tmp_path: Path, files: list[ImageFile], read_paths: list[str]) -> None:
    root, cache_file = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, cache_file, rescan=False)
    cached_scan(root, files[:2], cache_file, rescan=False)
    read_paths.clear()
    cached_scan(root, files, cache_file, rescan=False)
    assert read_paths == []


def test_number_of_unchanged_images_is_logged(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_photos(tmp_path / "photos", {f"{s}/{k}": 2 for s in ("train", "valid") for k in "ab"})
    first = image_folder(str(root), **options)
    assert manifest_file(options["cache_dir"], root).exists()
    with caplog.at_level("INFO"):
        assert image_folder(str(root), **options).train.spec == first.train.spec
    assert caplog.messages == [
        f"8 of 8 images below '{root}' are unchanged since the last scan (data.rescan=true reads all again)"
    ]


def test_time_of_last_use_is_updated(tmp_path: Path, files: list[ImageFile]) -> None:
    root, cache_file = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, cache_file, rescan=False)
    os.utime(cache_file, (0, 0))
    cached_scan(root, files, cache_file, rescan=False)
    assert cache_file.stat().st_mtime > time.time() - 60
