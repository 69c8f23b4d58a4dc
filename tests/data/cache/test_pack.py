"""Packs are complete or absent, verified when read, and written by one process at a time."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.cache.pack import CorruptPackError, Pack, PackSpec
from experiments.data.cache.pack_writer import PackWriter, packing
from experiments.data.cache.paths import leftovers
from experiments.data.cache.rows import FileRows

COUNT = 10


def contents(dtype: str = "uint8", **identity: str) -> PackSpec:
    return PackSpec(identity, (3, 5), dtype, np.arange(COUNT) % 2, {"source": "tests", "split": "train"})


def rows(dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, 5)).astype(dtype)


def filled(folder: Path, what: PackSpec | None = None) -> PackWriter:
    what = what or contents()
    begun = packing(folder, what)
    assert begun is not None
    begun.write(np.arange(COUNT), rows(what.dtype))
    begun.close()
    return begun


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_written_rows_are_read_back(tmp_path: Path, dtype: str) -> None:
    filled(tmp_path / "key", contents(dtype))
    pack = Pack(tmp_path / "key", contents(dtype))
    read, sound = pack.read(np.array([7, 0, 7]))
    np.testing.assert_array_equal(read, rows(dtype)[[7, 0, 7]])
    assert sound.all()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["key"]


def test_numpy_can_open_a_pack(tmp_path: Path) -> None:
    filled(tmp_path / "key")
    np.testing.assert_array_equal(np.load(tmp_path / "key/data.npy", mmap_mode="r"), rows())
    np.testing.assert_array_equal(np.load(tmp_path / "key/labels.npy"), contents().labels)
    meta = json.loads((tmp_path / "key/meta.json").read_text())
    assert (meta["about"], meta["shape"]) == ({"source": "tests", "split": "train"}, [COUNT, 3, 5])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4), max_size=12))
def test_order_of_writing_does_not_change_the_pack(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("packs") / "key"
    begun = packing(folder, contents())
    assert begun is not None
    for part in [*parts, *([number] for number in range(COUNT))]:
        assert begun.complete or not folder.exists()
        begun.write(np.array(part), rows()[part])
    begun.close()
    np.testing.assert_array_equal(Pack(folder, contents()).read(np.arange(COUNT))[0], rows())


@pytest.mark.parametrize(
    "other",
    [
        contents(image_size="8"),
        contents("float32"),
        PackSpec({}, (3, 5), "uint8", np.zeros(COUNT, np.int64), {}),
        PackSpec({}, (5, 3), "uint8", contents().labels, {}),
    ],
)
def test_key_depends_on_everything_that_changes_bits(other: PackSpec) -> None:
    assert other.key != contents().key


def test_key_does_not_depend_on_about() -> None:
    assert PackSpec({}, (3, 5), "uint8", contents().labels, {"source": "elsewhere"}).key == contents().key


def test_incomplete_pack_is_removed_when_closed(tmp_path: Path) -> None:
    begun = packing(tmp_path / "key", contents())
    assert begun is not None
    begun.write(np.array([1]), rows()[[1]])
    begun.close()
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_one_process_share_the_writer(tmp_path: Path) -> None:
    first = packing(tmp_path / "key", contents())
    assert first is not None
    assert packing(tmp_path / "key", contents()) is first
    first.close()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("data.npy", b"short", "data.npy has 5 bytes"),
        ("checksums.npy", b"", "checksums.npy has changed"),
        ("checksums.npy", None, "checksums.npy"),
        ("meta.json", b"{}", "'format'"),
        ("meta.json", b"no json", "Expecting value"),
        ("meta.json", b"[]", "list indices"),
    ],
)
def test_corrupt_pack_is_found_when_opened(tmp_path: Path, file: str, content: bytes | None, reason: str) -> None:
    filled(tmp_path / "key")
    path = tmp_path / "key" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CorruptPackError, match=reason):
        Pack(tmp_path / "key", contents())


def test_corrupt_row_is_found_when_first_read(tmp_path: Path) -> None:
    filled(tmp_path / "key")
    with (tmp_path / "key/data.npy").open("r+b") as data:
        data.seek(len(contents().header) + 4 * 15 + 3)
        data.write(b"\0\xff")
    pack = Pack(tmp_path / "key", contents())
    for _ in range(2):
        read, sound = pack.read(np.arange(COUNT))
        assert sound.tolist() == [number != 4 for number in range(COUNT)]
        np.testing.assert_array_equal(read[sound], rows()[sound])


def test_rows_of_pack_truncated_while_open_are_invalid(tmp_path: Path) -> None:
    filled(tmp_path / "key")
    pack = Pack(tmp_path / "key", contents())
    os.truncate(tmp_path / "key/data.npy", len(contents().header) + 7 * 15 + 1)
    assert pack.read(np.arange(COUNT))[1].tolist() == [number < 7 for number in range(COUNT)]


def test_discard_keeps_new_pack_with_the_same_name(tmp_path: Path) -> None:
    filled(tmp_path / "key")
    old = Pack(tmp_path / "key", contents())
    old.discard()
    assert list(tmp_path.iterdir()) == []
    filled(tmp_path / "key")
    old.discard()
    assert Pack(tmp_path / "key", contents()).read(np.array([3]))[1].all()


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Limits the size of files, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_no_incomplete_pack(tmp_path: Path) -> None:
    large = PackSpec({}, (1000,), "uint8", np.zeros(COUNT, np.int64), {})
    begun = packing(tmp_path / "key", large)
    assert begun is not None
    with files_limited_to(5000), pytest.raises(OSError, match="too large"):
        begun.write(np.arange(COUNT), np.zeros((COUNT, 1000), np.uint8))
    assert list(tmp_path.iterdir()) == []
    begun.write(np.arange(COUNT), np.zeros((COUNT, 1000), np.uint8))
    assert not begun.complete


def test_missing_space_is_reported_before_writing(tmp_path: Path) -> None:
    vast = PackSpec({}, (2**40,), "uint8", np.zeros(2**10, np.int64), {})
    with pytest.raises(OSError, match=r"1,125,899,907 MB are needed and [0-9,]+ MB are free"):
        packing(tmp_path / "key", vast)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_a_large_pack(tmp_path: Path) -> None:
    """The pages stay in the system's cache: neither anonymous nor mapped memory of the process grows."""
    large = PackSpec({}, (2**20,), "uint8", np.zeros(200, np.int64), {})
    begun = packing(tmp_path / "key", large)
    assert begun is not None
    block = np.random.default_rng(0).integers(0, 256, (1, 2**20), np.uint8)
    for number in range(200):
        begun.write(np.array([number]), block)
    begun.close()
    pack, before = Pack(tmp_path / "key", large), resident()
    for number in range(0, 200, 4):
        assert pack.read(np.arange(number, number + 4))[1].all()
    assert resident() - before < 40 * 2**20


def resident() -> int:
    """Returns the bytes of this process in memory, anonymous and mapped."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


MAKER = """
import sys, numpy as np
from pathlib import Path
from experiments.data.cache.pack import PackSpec
from experiments.data.cache.pack_writer import packing
begun = packing(Path(sys.argv[1]), PackSpec({}, (3, 5), "uint8", np.arange(10) % 2, {}))
print("none" if begun is None else "begun", flush=True)
if begun is not None:
    begun.write(np.arange(5), np.zeros((5, 3, 5), np.uint8))
    print("half", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_pack_of_killed_process_is_written_by_the_next(tmp_path: Path) -> None:
    """While one process writes a pack, others work without it; after it is killed, the next one starts again."""
    folder = tmp_path / "key"
    command = [sys.executable, "-c", MAKER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert [maker.stdout.readline(), maker.stdout.readline()] == ["begun\n", "half\n"]
        assert packing(folder, contents()) is None
        assert len(leftovers(folder)) == 1
        maker.kill()
    assert len(leftovers(folder)) == 1
    filled(folder)
    np.testing.assert_array_equal(Pack(folder, contents()).read(np.arange(COUNT))[0], rows())
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_time_of_last_use_is_updated(tmp_path: Path) -> None:
    filled(tmp_path / "key")
    os.utime(tmp_path / "key/meta.json", (0, 0))
    Pack(tmp_path / "key", contents())
    assert (tmp_path / "key/meta.json").stat().st_mtime > time.time() - 60


def test_file_of_rows_is_closed_with_its_last_reference(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(bytes(12))
    descriptor = FileRows(tmp_path / "rows", os.O_RDONLY, 0, (3,), "uint8").descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
