"""Listing and pruning of the cache."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.trainings import Trainings

from experiments.data.cache.listing import entries, manifests, prune
from experiments.data.cache.pack import PackSpec
from experiments.data.cache.pack_writer import PackWriter, packing
from experiments.data.cache.paths import lock_file, manifest_file, unfinished
from experiments.data.images import scan_cache
from experiments.data.images.scan import ImageFile
from experiments.data.images.scan_cache import cached_scan
from experiments.files import locked

DAY = 86_400
Doctor = Callable[..., subprocess.CompletedProcess[str]]


def pack_spec(name: str) -> PackSpec:
    return PackSpec(
        {"name": name}, (4,), "uint8", np.zeros(3, np.int64), {"source": f"/photos/{name}", "split": "train"}
    )


def pack(cache: Path, name: str, *, idle_days: float = 0.0) -> Path:
    folder = cache / "packs" / pack_spec(name).key
    begun = packing(folder, pack_spec(name))
    assert begun is not None
    begun.write(np.arange(3), np.zeros((3, 4), np.uint8))
    begun.close()
    used = time.time() - idle_days * DAY
    os.utime(folder / "meta.json", (used, used))
    return folder


def manifest(cache: Path, name: str, *, idle_days: float = 0.0) -> Path:
    """Manifest of a folder with one image, written by a scan of the folder."""
    photos = cache.parent / name
    photos.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(photos / "one.png")
    os.utime(photos / "one.png", (0, 0))
    file = manifest_file(str(cache), photos)
    cached_scan(photos, [ImageFile("one.png", 0)], file, rescan=False)
    return aged(file, idle_days=idle_days)


def aged(file: Path, *, idle_days: float) -> Path:
    file.touch()
    used = time.time() - idle_days * DAY
    os.utime(file, (used, used))
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with packs and manifests that are old, new, corrupt, left over by a killed run, or in progress."""
    monkeypatch.setattr(scan_cache, "_SETTLED", -(10**9))  # files just written count as old
    root = tmp_path / "Zwischen ü"
    pack(root, "old", idle_days=40)
    pack(root, "new")
    (pack(root, "corrupt") / "meta.json").write_text("{")
    (root / "packs" / f"{pack_spec('killed').key}.123.tmp").mkdir()
    manifest(root, "old", idle_days=40)
    manifest(root, "new")
    manifest(root, "corrupt").write_text("{")
    aged(unfinished(root / "manifests/killed.json"), idle_days=1)
    unfinished(root / "manifests/making.json").touch()
    making: PackWriter | None = packing(root / "packs" / pack_spec("making").key, pack_spec("making"))
    assert making is not None
    yield root
    making.close()


@pytest.fixture
def doctor(trainings: Trainings) -> Doctor:
    """Runs the command for a cache, from the folder that contains it."""
    return lambda cache, *overrides: trainings.run(
        cache.parent, f"cache_dir='{cache}'", *overrides, door="doctor", store=False
    )


def states(cache: Path) -> list[str]:
    return sorted(entry.state for entry in entries(str(cache)))


def manifest_states(cache: Path) -> list[str]:
    return sorted(entry.state for entry in manifests(str(cache)))


def fates(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return {f"{row['kind']} {row['state']} {Path(row['source']).name}".strip(): row["prune"] for row in rows}


def test_listing_shows_all_entries_and_changes_nothing(cache: Path, doctor: Doctor) -> None:
    done = doctor(cache)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("/photos/old", "/photos/new", "3 x 4 uint8", "1 file", "in progress", "left over", "corrupt"):
        assert text in done.stdout
    contained, hint = done.stdout.splitlines()[-2:]
    assert contained.startswith(f"{cache} contains 5 packs and 5 manifests (")
    assert hint == "prune=true shows what can be removed."
    assert manifest_states(cache) == ["complete", "complete", "corrupt", "in progress", "left over"]
    assert states(cache) == ["complete", "complete", "corrupt", "in progress", "left over"]


def test_prune_lists_entries_and_removes_them_with_fix(cache: Path, doctor: Doctor) -> None:
    every = ("pack", "manifest")
    expected = [f"{kind} {state}" for kind in every for state in ("corrupt", "left over", "complete old")]
    kept = {f"{kind} {state}": "keep" for kind in every for state in ("in progress", "complete new")}
    shown = doctor(cache, "prune=true", "format=json")
    assert fates(shown) == {**dict.fromkeys(expected, "would remove"), **kept}
    assert len(states(cache)) == 5
    done = doctor(cache, "prune=true", "fix=true", "format=json")
    assert fates(done) == {**dict.fromkeys(expected, "removed"), **kept}
    assert states(cache) == manifest_states(cache) == ["complete", "in progress"]


def test_prune_summary_names_fix_option(cache: Path, doctor: Doctor) -> None:
    marked, hint = doctor(cache, "prune=true", "older_than_days=0").stdout.splitlines()[-2:]
    assert marked.startswith("4 packs and 4 manifests (")
    assert marked.endswith("would be removed.")
    assert hint == "Nothing was changed: add fix=true to remove them."


@pytest.mark.parametrize(
    ("layout", "expected"), [("table", "contains 0 packs and 0 manifests (0.0 MB)"), ("json", "[]"), ("csv", "")]
)
def test_empty_cache_is_listed_without_error(tmp_path: Path, layout: str, expected: str, doctor: Doctor) -> None:
    done = doctor(tmp_path / "absent", f"format={layout}")
    assert done.returncode == 0
    assert expected in done.stdout


def test_out_of_range_value_is_reported_in_one_line(tmp_path: Path, doctor: Doctor) -> None:
    done = doctor(tmp_path, "older_than_days=-1")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: older_than_days=-1.0 is out of range: expected 0 or more. Change older_than_days"
    )


def test_entry_in_use_is_not_pruned(tmp_path: Path) -> None:
    folder = pack(tmp_path, "busy")
    with locked(lock_file(folder), wait=False, remove=True) as held:
        assert held
        (entry,) = entries(str(tmp_path))
        assert not prune(entry)
    assert prune(entry)
    assert list(folder.parent.iterdir()) == []
