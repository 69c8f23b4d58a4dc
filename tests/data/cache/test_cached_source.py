"""All caches give bit for bit identical batches, even if packs are corrupt or removed, or if the disk is full."""

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trainings import Trainings

from experiments.data import Flip, IndexedSplit, Splits, image_folder, named_errors
from experiments.data.cache.cached_source import CachedSource, DiskCache
from experiments.data.cache.listing import entries
from experiments.data.cache.paths import packs_folder, remove, unfinished
from experiments.errors import DataError

MakePhotos = Callable[[Path, dict[str, int]], Path]
FOLDERS = {"train/cats": 6, "train/dogs": 5, "valid/cats": 3, "valid/dogs": 3}
Batches = list[tuple[Any, Any]]


@pytest.fixture
def photos(tmp_path: Path, make_photos: MakePhotos) -> Path:
    return make_photos(tmp_path / "photos", FOLDERS)


@pytest.fixture(scope="module")
def more_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(0)
    for folder, count in {"train/a": 21, "train/b": 16, "valid/a": 2, "valid/b": 2}.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(root / folder / f"{index:02}.png")
    return root


def read(split: Any, epoch: int = 0, first_step: int = 0) -> Batches:
    return [(x.numpy(), y.numpy()) for x, y in split.epoch(epoch, first_step=first_step)]


def assert_equal(left: Batches, right: Batches) -> None:
    assert len(left) == len(right)
    for pair, other in zip(left, right, strict=True):
        for array, expected in zip(pair, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def disk_cache(splits: Splits) -> DiskCache:
    assert isinstance(splits.train, IndexedSplit)
    assert isinstance(splits.train.source, CachedSource)
    assert isinstance(splits.train.source.backend, DiskCache)
    return splits.train.source.backend


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def packed(photos: Path, options: dict[str, Any]) -> Path:
    """Reads one epoch, waits until its pack is committed, and returns the folder of the pack."""
    splits = image_folder(str(photos), **{**options, "cache": "disk"})
    read(splits.train)
    wait_for(disk_cache(splits).folder.exists)
    return disk_cache(splits).folder


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 40),
    limit=st.one_of(st.none(), st.integers(2, 37)),
    parallel=st.one_of(st.just("auto"), st.integers(1, 4)),
    begin=st.floats(0, 1),
    augment=st.sampled_from([(), (Flip(True, True),)]),
)
def test_cached_batches_are_bit_identical(
    more_photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
    options: dict[str, Any],
    batch_size: int,
    limit: int | None,
    parallel: Any,
    begin: float,
    augment: Any,
) -> None:
    """Covers an empty cache, one that an epoch from `begin` on filled, a full one, and a second reader."""
    changes = {"image_size": [8, 7], "batch_size": batch_size, "limit": limit, "augment": augment}
    same = {**options, **changes, "cache_dir": str(tmp_path_factory.mktemp("cache"))}
    plain = image_folder(str(more_photos), **{**same, "num_parallel_calls": 1, "prefetch": 0}).train
    expected = [read(plain, epoch) for epoch in range(3)]
    first_step = round(begin * plain.steps_per_epoch)
    for cache in ("memory", "disk"):
        kept, later = (
            image_folder(str(more_photos), **{**same, "cache": cache, "num_parallel_calls": parallel}).train
            for _ in "12"
        )
        assert_equal(read(kept, 0, first_step), expected[0][first_step:])
        for epoch in (1, 2, 1):
            assert_equal(read(kept, epoch), expected[epoch])
        assert_equal(read(later, 2, first_step), expected[2][first_step:])


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached_split_does_not_need_its_files(photos: Path, options: dict[str, Any], cache: str) -> None:
    split = image_folder(str(photos), **{**options, "cache": cache}).train
    before = read(split)
    for file in photos.rglob("*.jpg"):
        file.unlink()
    assert_equal(read(split), before)


def test_first_epoch_writes_pack_that_later_run_reads(photos: Path, options: dict[str, Any]) -> None:
    folder = packed(photos, options)
    later = image_folder(str(photos), **{**options, "cache": "disk"})
    for file in photos.rglob("*.jpg"):
        file.unlink()
    assert len(read(later.train)) == 3
    (entry,) = entries(options["cache_dir"])
    assert (entry.path, entry.state, entry.source, entry.split) == (folder, "complete", str(photos), "train")
    assert entry.shape == "11 x 16 x 12 x 3 uint8"


def test_pack_is_completed_after_epoch_that_started_in_the_middle(photos: Path, options: dict[str, Any]) -> None:
    splits = image_folder(str(photos), **{**options, "cache": "disk"})
    assert len(read(splits.train, first_step=2)) == 1
    wait_for(disk_cache(splits).folder.exists)


def test_epoch_that_stops_early_commits_no_pack(photos: Path, options: dict[str, Any]) -> None:
    nothing_ahead = {"num_parallel_calls": 1, "prefetch": 0}
    splits = image_folder(str(photos), **{**options, **nothing_ahead, "cache": "disk"})
    next(iter(splits.train.epoch(0)))
    assert not disk_cache(splits).folder.exists()


@pytest.mark.parametrize("change", [{"image_size": [12, 16]}, {"channels": 1}, {"antialias": True}, {"limit": 6}])
def test_options_that_change_pixels_use_another_pack(
    photos: Path, options: dict[str, Any], change: dict[str, Any]
) -> None:
    assert packed(photos, options) != packed(photos, {**options, **change})


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"seed": 5}, {"augment": (Flip(True, False),)}, {"prefetch": 1}])
def test_options_that_change_no_pixel_use_the_same_pack(
    photos: Path, options: dict[str, Any], change: dict[str, Any]
) -> None:
    assert packed(photos, options) == packed(photos, {**options, **change})


def test_changed_file_uses_another_pack(photos: Path, options: dict[str, Any]) -> None:
    before = packed(photos, options)
    (photos / "train/cats/000.jpg").write_bytes((photos / "valid/dogs/002.jpg").read_bytes())
    assert packed(photos, {**options, "allow_leakage": True}) != before


def test_corrupt_row_is_decoded_and_pack_is_written_again(
    photos: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = read(image_folder(str(photos), **options).train, 1)
    folder = packed(photos, options)
    split = image_folder(str(photos), **{**options, "cache": "disk"}).train
    flip_bit(folder / "data.npy", 5000)
    with caplog.at_level(logging.WARNING):
        assert_equal(read(split, 1), before)
    assert caplog.messages == [
        f"The pack {folder} is corrupt: unreadable rows are decoded, and the pack is removed and written again."
    ]
    assert not folder.exists()
    assert_equal(read(split, 1), before)
    wait_for(folder.exists)
    assert_equal(read(image_folder(str(photos), **{**options, "cache": "disk"}).train, 1), before)


def test_pack_truncated_while_in_use_changes_no_bit(photos: Path, options: dict[str, Any]) -> None:
    before = read(image_folder(str(photos), **options).train, 1)
    folder = packed(photos, options)
    split = image_folder(str(photos), **{**options, "cache": "disk", "num_parallel_calls": 4}).train
    batches = split.epoch(1)
    os.truncate(folder / "data.npy", 0)
    assert_equal([(x.numpy(), y.numpy()) for x, y in batches], before)


def flip_bit(file: Path, place: int) -> None:
    """Flips one bit of the byte at `place` in `file`."""
    with file.open("r+b") as opened:
        opened.seek(place)
        (value,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([value ^ 1]))


def test_truncated_pack_is_written_again(
    photos: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = packed(photos, options)
    os.truncate(folder / "data.npy", 1000)
    with caplog.at_level(logging.WARNING):
        assert packed(photos, options) == folder
    (message,) = caplog.messages
    assert message.startswith(f"The pack {folder} is corrupt (data.npy has 1000 bytes and not ")
    assert message.endswith("): it is removed and written again.")


def test_writer_does_not_touch_pack_that_is_removed_during_commit(
    photos: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`remove` first renames the pack to the name that the unfinished pack had."""
    splits = image_folder(str(photos), **{**options, "cache": "disk"})
    folder, aside = disk_cache(splits).folder, unfinished(disk_cache(splits).folder)

    def move_aside(path: Path) -> None:
        if path == folder.parent:
            folder.rename(aside)

    monkeypatch.setattr("experiments.data.cache.pack_writer.sync", move_aside)
    read(splits.train)
    wait_for(lambda: aside.exists() and all(thread.name != "commit a pack" for thread in threading.enumerate()))
    assert (aside / "data.npy").exists()


def test_pack_removed_while_in_use_stays_readable(photos: Path, options: dict[str, Any]) -> None:
    folder = packed(photos, options)
    split = image_folder(str(photos), **{**options, "cache": "disk"}).train
    before = read(split)
    remove(folder)
    assert_equal(read(split), before)


def unwritable_cache(options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Puts a file in the place of the cache folder, so that writing fails even for root."""
    Path(options["cache_dir"]).write_text("")
    return {**options, "cache": "disk", **changes}


def test_unwritable_required_cache_is_an_error(photos: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DataError) as raised:
        image_folder(str(photos), **unwritable_cache(options))
    assert str(raised.value) == (
        f"data.cache_dir='{options['cache_dir']}' cannot keep the decoded images of 'train' (0 MB): Not a directory. "
        "Set data.cache_dir to a place with room that you can write to, data.cache=none to decode in every epoch, or "
        "data.cache_required=false to train without a cache."
    )


def test_unwritable_optional_cache_logs_one_warning(
    photos: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected = read(image_folder(str(photos), **options).train)
    with caplog.at_level(logging.WARNING):
        split = image_folder(str(photos), **unwritable_cache(options, cache_required=False)).train
        for _ in range(3):
            assert_equal(read(split), expected)
    of_training, _ = caplog.messages  # the second message is about validation
    assert of_training == (
        f"data.cache_dir='{options['cache_dir']}' cannot keep the decoded images of 'train' (0 MB): Not a directory. "
        "Training continues and decodes in every epoch."
    )


@pytest.mark.parametrize("required", [True, False])
def test_full_disk_in_first_epoch_is_an_error_or_a_warning(
    photos: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture, required: bool
) -> None:
    expected = read(image_folder(str(photos), **options).train)
    splits = image_folder(str(photos), **{**options, "cache": "disk", "cache_required": required})
    with files_limited_to(3000), caplog.at_level(logging.WARNING):
        if required:
            with pytest.raises(DataError, match=r"cannot keep .*: File too large\. Set data\.cache_dir"):
                train(splits)
        else:
            assert_equal(read(splits.train), expected)
            assert len(caplog.messages) == 1
            assert_equal(read(splits.train), expected)
    assert list(packs_folder(options["cache_dir"]).iterdir()) == []


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Limits the size of files, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train(splits: Splits) -> None:
    with named_errors(splits):
        read(splits.train)


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_file_that_changes_during_training_is_named(photos: Path, options: dict[str, Any], cache: str) -> None:
    splits = image_folder(str(photos), **{**options, "cache": cache})
    changed = photos / "train/dogs/003.jpg"
    changed.write_bytes((photos / "train/cats/003.jpg").read_bytes())
    with pytest.raises(DataError) as raised:
        train(splits)
    assert str(raised.value) == (
        f"1 image of 11 changed during training: {changed}. Expected files that stay unchanged until the run ends. "
        "Start again when no other program writes to the folder."
    )
    assert [entry for entry in entries(options["cache_dir"]) if entry.state == "complete"] == []


def hashes(photos: str, options: dict[str, Any], go: str) -> None:
    """Waits until the file `go` exists, then prints the hash of each of three epochs."""
    split = image_folder(photos, **options).train
    print("ready", flush=True)
    wait_for(Path(go).exists)
    for epoch in (0, 1, 1):
        print(sha256(b"".join(x.tobytes() for x, _ in read(split, epoch))).hexdigest(), flush=True)


def halfway(photos: str, options: dict[str, Any]) -> None:
    """Reads one batch of an epoch, prints "half" and waits to be killed."""
    batches = iter(image_folder(photos, **options).train.epoch(0))
    next(batches)
    print("half", flush=True)
    time.sleep(600)


@pytest.mark.slow
def test_parallel_processes_write_one_pack(
    trainings: Trainings, photos: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    call = (hashes, str(photos), {**options, "cache": "disk"}, str(tmp_path / "go"))
    with trainings.calling(*call) as one, trainings.calling(*call) as other:
        for each in (one, other):
            each.wait_for("ready\n")
        (tmp_path / "go").touch()
        assert [each.wait() for each in (one, other)] == [0, 0], one.stderr + other.stderr
        assert one.stdout == other.stdout
    (entry,) = entries(options["cache_dir"])
    assert entry.state == "complete"


@pytest.mark.slow
def test_run_killed_while_writing_a_pack_leaves_no_valid_pack(
    trainings: Trainings, photos: Path, options: dict[str, Any]
) -> None:
    # Reading ahead could already have completed the pack.
    slow = {**options, "cache": "disk", "num_parallel_calls": 1, "prefetch": 0}
    with trainings.calling(halfway, str(photos), slow) as process:
        process.wait_for("half\n")
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    (entry,) = entries(options["cache_dir"])
    assert entry.state == "left over"
    packed(photos, options)
    (entry,) = entries(options["cache_dir"])
    assert entry.state == "complete"
