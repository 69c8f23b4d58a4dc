"""A folder that has not changed is not read again; one that has is, however it was changed."""

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
    """Files just written count as old."""
    monkeypatch.setattr(scan_cache, "_SETTLED", -(10**9))


@pytest.fixture
def files(tmp_path: Path, make_photos: MakePhotos) -> list[ImageFile]:
    make_photos(tmp_path / "photos", {"ä": 3, "b": 2})
    found = sorted((tmp_path / "photos").rglob("*.jpg"))
    return [ImageFile(file.relative_to(tmp_path / "photos").as_posix(), 1) for file in found]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read."""
    read: list[str] = []

    def recording(root: Path, files: Any) -> Any:
        read.extend(file.path for file in files)
        return scan(root, files)

    monkeypatch.setattr(scan_cache, "scan", recording)
    return read


def test_the_second_scan_finds_the_same_and_reads_nothing(
    tmp_path: Path, files: list[ImageFile], counted: list[str]
) -> None:
    root, memory = tmp_path / "photos", tmp_path / "cache/one.json"
    first = cached_scan(root, files, memory, rescan=False)
    assert first == scan(root, files)
    counted.clear()
    assert cached_scan(root, files[::-1], memory, rescan=False) == first[::-1]
    assert counted == []
    assert cached_scan(root, files, memory, rescan=True) == first
    assert len(counted) == 5


def _rewrite(file: Path) -> None:
    """Other bytes of the same number, with the old time of modification."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes() + b"x")
    other.replace(file)


@pytest.mark.parametrize("change", [_rewrite, _replace, lambda file: file.write_bytes(b""), Path.unlink])
def test_what_changed_is_read_again(
    tmp_path: Path, files: list[ImageFile], counted: list[str], change: Callable[[Path], Any]
) -> None:
    root, memory = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, memory, rescan=False)
    change(root / files[3].path)
    counted.clear()
    assert cached_scan(root, files, memory, rescan=False) == scan(root, files)
    assert counted == [files[3].path]


def test_a_file_that_may_still_be_changing_is_not_remembered(
    tmp_path: Path, files: list[ImageFile], counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_cache, "_SETTLED", 3600 * 10**9)
    for _ in range(2):
        cached_scan(tmp_path / "photos", files, tmp_path / "one.json", rescan=False)
    assert len(counted) == 10


@pytest.mark.parametrize("content", [b"", b"nonsense", b"0" * 64 + b"\n{}"])
def test_a_damaged_memory_is_none(tmp_path: Path, files: list[ImageFile], content: bytes) -> None:
    root, memory = tmp_path / "photos", tmp_path / "one.json"
    memory.write_bytes(content)
    assert cached_scan(root, files, memory, rescan=False) == scan(root, files)
    assert memory.stat().st_size > 500


def test_where_nothing_can_be_kept_all_is_read(tmp_path: Path, files: list[ImageFile]) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    root, memory = tmp_path / "photos", tmp_path / "taken/one.json"
    assert cached_scan(root, files, memory, rescan=False) == scan(root, files)


def test_a_limit_forgets_nothing(tmp_path: Path, files: list[ImageFile], counted: list[str]) -> None:
    root, memory = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, memory, rescan=False)
    cached_scan(root, files[:2], memory, rescan=False)
    counted.clear()
    cached_scan(root, files, memory, rescan=False)
    assert counted == []


def test_a_run_says_that_it_did_not_read_again(
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


def test_use_is_remembered(tmp_path: Path, files: list[ImageFile]) -> None:
    root, memory = tmp_path / "photos", tmp_path / "one.json"
    cached_scan(root, files, memory, rescan=False)
    os.utime(memory, (0, 0))
    cached_scan(root, files, memory, rescan=False)
    assert memory.stat().st_mtime > time.time() - 60
