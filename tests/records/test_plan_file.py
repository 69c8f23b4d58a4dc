"""Plans that this version has written, another one, or that are damaged."""

import pickle
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from experiments.errors import ConfigError
from experiments.records.plan_file import PLAN, read_plan, write_plan


class Space:
    """Stands for a class of a plan."""


def pickled_from_a_module_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> bytes:
    module = ModuleType("experiments.sweeps.space")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(module, "Space", Space, raising=False)
    monkeypatch.setattr(Space, "__module__", module.__name__)
    content = pickle.dumps(Space())
    monkeypatch.undo()
    return content


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_plan(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def planned_by(folder: Path, writer: str) -> str:
    return (
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{version('experiments')}. Start the same command again without sweep.resume and in another "
        "hydra.sweep.dir: its jobs run again, as sweep.reuse=true takes runs of the same code only."
    )


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_plan(tmp_path, {"before": 1})
    write_plan(tmp_path, {"seed": [1, 2]})
    assert read_plan(tmp_path) == {"seed": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == [PLAN]


def test_a_plan_of_the_version_that_stored_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PLAN).write_bytes(pickled_from_a_module_that_is_gone(monkeypatch))
    assert refusal(tmp_path) == planned_by(tmp_path, "0.1")


def test_a_plan_of_a_later_version_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pickled_from_a_module_that_is_gone(monkeypatch)
    (tmp_path / PLAN).write_bytes(pickle.dumps("98.7.6") + plan)
    assert refusal(tmp_path) == planned_by(tmp_path, "98.7.6")


def test_a_plan_of_other_code_of_this_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = version("keras-experiments")
    (tmp_path / PLAN).write_bytes(pickle.dumps(own) + pickled_from_a_module_that_is_gone(monkeypatch))
    assert refusal(tmp_path) == planned_by(tmp_path, own)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 99, b"\x80\x05X"])
def test_a_damaged_plan(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PLAN).write_bytes(content)
    assert refusal(tmp_path).startswith(f"the plan {tmp_path / PLAN} is damaged: expected the file as it was written")


def test_a_plan_that_was_cut_short(tmp_path: Path) -> None:
    write_plan(tmp_path, list(range(99)))
    whole = (tmp_path / PLAN).read_bytes()
    (tmp_path / PLAN).write_bytes(whole[:-9])
    assert f"the plan {tmp_path / PLAN} is damaged" in refusal(tmp_path)
