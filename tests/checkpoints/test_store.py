"""Checkpoints on disk are either valid, or ignored with a warning."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from tests.small_training import damage

from experiments.checkpoints.callback_state import Arrays, pack, unpack
from experiments.checkpoints.store import commit, latest_valid, remove_uncommitted, save, uncommit
from experiments.errors import ExperimentError
from experiments.files import literal, write_atomically

FILES = (".index", ".data-00000-of-00001", ".npz", ".json")


@pytest.fixture(autouse=True)
def record_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="experiments.checkpoints.store")


def write_checkpoint(folder: Path, number: int, state: dict[str, Any] | None = None) -> Path:
    prefix = folder / f"ckpt-{number}"
    for ending in FILES[:2]:
        prefix.with_name(prefix.name + ending).write_bytes(f"{ending} of {number}".encode())
    commit(str(prefix), {"step": number} if state is None else state)
    return prefix


def test_newest_checkpoint_is_latest(tmp_path: Path) -> None:
    for number in (9, 100, 20):
        write_checkpoint(tmp_path, number, {"step": number, "values": np.arange(3)})
    found = latest_valid(tmp_path)
    assert found is not None
    assert found.prefix == str(tmp_path / "ckpt-100")
    assert found.state["step"] == 100
    np.testing.assert_array_equal(found.state["values"], [0, 1, 2])


def test_folder_without_committed_checkpoint_has_no_latest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert latest_valid(tmp_path / "absent") is None
    (tmp_path / "ckpt-3.index").write_text("not committed")
    assert latest_valid(tmp_path) is None
    assert caplog.messages == []


@pytest.mark.parametrize("ending", FILES)
def test_flipped_bit_makes_checkpoint_corrupt(tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str) -> None:
    write_checkpoint(tmp_path, 1)
    newest = write_checkpoint(tmp_path, 2)
    damage(newest.with_name(newest.name + ending))
    found = latest_valid(tmp_path)
    assert found is not None
    assert found.prefix == str(tmp_path / "ckpt-1")
    (message,) = caplog.messages
    assert message.startswith(f"The checkpoint {newest} (")
    assert message.endswith(") is corrupt; resuming from checkpoint 1, the latest valid one.")


@pytest.mark.parametrize("ending", FILES[:3])
def test_lost_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str) -> None:
    newest = write_checkpoint(tmp_path, 2)
    newest.with_name(newest.name + ending).unlink()
    assert latest_valid(tmp_path) is None
    assert f"{newest.name}{ending}" in caplog.text


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_truncated_commit_file_makes_checkpoint_corrupt(tmp_path: Path, share: float) -> None:
    write_checkpoint(tmp_path, 1)
    broken = write_checkpoint(tmp_path, 2).with_name("ckpt-2.json")
    content = broken.read_bytes()
    broken.write_bytes(content[: int(share * len(content))])
    found = latest_valid(tmp_path)
    assert found is not None
    assert found.prefix == str(tmp_path / "ckpt-1")


def test_without_valid_checkpoint_run_resumes_from_beginning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        damage(write_checkpoint(tmp_path, number).with_name(f"ckpt-{number}.index"))
    assert latest_valid(tmp_path) is None
    assert caplog.messages == [
        f"The checkpoint {tmp_path}/ckpt-{number} (ckpt-{number}.index has changed since it was written) is corrupt; "
        "resuming from the beginning, because no checkpoint is valid."
        for number in (2, 1)
    ]


def test_uncommitted_files_are_deleted(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    rotated = write_checkpoint(tmp_path, 2)
    rotated.with_name("ckpt-2.index").unlink()
    kept = {path.name for path in tmp_path.glob("ckpt-1.*")} | {"checkpoint", "ckpt-x.txt", "best"}
    for name in ("ckpt-3.data-00000-of-00001", "ckpt-1.json.tmp", "checkpoint", "ckpt-x.txt"):
        (tmp_path / name).write_text("")
    for name in ("ckpt-4_temp", "ckpt-1_temp", "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "ckpt-4_temp" / "part-00000-of-00001").write_text("")
    remove_uncommitted(tmp_path, "ckpt")
    assert {path.name for path in tmp_path.iterdir()} - {"ckpt-1.json.tmp"} == kept


def test_checkpoint_being_overwritten_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, 1)
    uncommit(write_checkpoint(tmp_path, 2))
    uncommit(tmp_path / "ckpt-3")
    found = latest_valid(tmp_path)
    assert found is not None
    assert found.prefix == str(tmp_path / "ckpt-1")
    assert caplog.messages == []


def test_interrupted_write_leaves_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.json"
    write_atomically(path, "before")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "after")
    assert path.read_text() == "before"


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | drawn.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), drawn.array_shapes())
)
STATES = st.dictionaries(
    st.text(st.characters(codec="utf-8")),
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner)),
)


@settings(max_examples=30, deadline=None)
@given(state=STATES)
def test_any_state_is_restored(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("states")
    write_checkpoint(folder, 1, state)
    found = latest_valid(folder)
    assert found is not None
    assert_same(found.state, state)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(other, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for key, value in other.items():
            assert_same(one[key], value)
    elif isinstance(other, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


def test_numpy_numbers_and_tuples_are_restored_as_python_types() -> None:
    arrays: Arrays = {}
    packed = pack({"a": np.float64(0.5), "b": (1, np.int64(2)), 3: None}, arrays, "mine")
    assert unpack(packed, arrays) == {"a": 0.5, "b": [1, 2], "3": None}


def test_state_of_unsupported_type_is_an_error() -> None:
    with pytest.raises(ExperimentError) as error:
        pack({"mine": {"seen": {1, 2}}}, {}, "callbacks")
    assert str(error.value) == (
        "callbacks.mine.seen is a set, which a checkpoint cannot store: expected numbers, strings, None, NumPy arrays, "
        "and lists or dicts of these. Change its get_state."
    )


@pytest.mark.parametrize(("name", "other"), [("ex [v1]", "ex v"), ("a*", "ab"), ("c?d", "cxd"), ("m=[a,b]", "m=a")])
def test_folder_whose_name_is_a_pattern_matches_no_other_folder(tmp_path: Path, name: str, other: str) -> None:
    variable = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(variable=variable)
    for folder, first in ((tmp_path / other, 10), (tmp_path / name, 20)):
        folder.mkdir()
        for number in range(4):
            variable.assign(first + number)
            prefix = save(checkpoint, folder / "checkpoints", number, "ckpt", 2)
            assert prefix == f"{folder}/checkpoints/ckpt-{number}"
    for folder, first in ((tmp_path / other, 10), (tmp_path / name, 20)):
        assert sorted(path.stem for path in (folder / "checkpoints").glob("*.index")) == ["ckpt-2", "ckpt-3"]
        with literal(folder / "checkpoints" / "ckpt-2") as path:
            checkpoint.restore(path).assert_consumed()
        assert variable.numpy() == first + 2
