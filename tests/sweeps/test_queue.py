"""The queue's file after a crash."""

from pathlib import Path

import optuna
import pytest

from experiments.errors import ExperimentError
from experiments.sweeps.queue import STUDY, damaged_line, drop_torn_line, require_whole, storage


@pytest.fixture
def study(tmp_path: Path) -> Path:
    made = optuna.create_study(storage=storage(None, tmp_path), study_name="s")
    made.enqueue_trial({"x": 1})
    return tmp_path / STUDY


def test_a_whole_file(study: Path) -> None:
    require_whole(study.parent)
    before = study.read_bytes()
    drop_torn_line(study.parent)
    assert study.read_bytes() == before


def test_a_line_that_was_cut_short_is_left_out(study: Path) -> None:
    before = study.read_bytes()
    study.write_bytes(before + b'{"op_code": 4, "wor')
    require_whole(study.parent)
    drop_torn_line(study.parent)
    assert study.read_bytes() == before
    optuna.load_study(storage=storage(None, study.parent), study_name="s").enqueue_trial({"x": 2})
    assert len(optuna.load_study(storage=storage(None, study.parent), study_name="s").trials) == 2


@pytest.mark.parametrize("line", [b"{", b"\x00\x00", b"3", b""])
def test_a_damaged_line_is_named(study: Path, line: bytes) -> None:
    study.write_bytes(study.read_bytes() + line + b"\n" + b'{"op_code": 0}\n')
    last = len(study.read_bytes().splitlines())
    assert damaged_line(study.parent) == last - 1
    with pytest.raises(ExperimentError) as error:
        require_whole(study.parent)
    assert str(error.value) == (
        f"the queue {study} is damaged: expected an event in line {last - 1}, received something else. "
        f"Make it anew from the runs in the store: python -m experiments.doctor fix=true folders=['{study.parent}']"
    )


def test_no_file_yet(tmp_path: Path) -> None:
    drop_torn_line(tmp_path)
    require_whole(tmp_path)
    assert not (tmp_path / STUDY).exists()
