"""Plan files of this version, of other versions, and corrupt ones."""

import pickle
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from experiments import DISTRIBUTION
from experiments.errors import ConfigError
from experiments.records.plan_file import PLAN, read_plan, write_plan


class Space:
    """Stand-in for a class of a plan."""


def pickle_of_removed_module(monkeypatch: pytest.MonkeyPatch) -> bytes:
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


def other_version(folder: Path, writer: str) -> str:
    return (
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{version(DISTRIBUTION)}. Start the same command again without sweep.resume and in another "
        "hydra.sweep.dir: its jobs run again, as sweep.reuse=true takes runs of the same code only."
    )


def test_plan_is_read_as_written(tmp_path: Path) -> None:
    write_plan(tmp_path, {"before": 1})
    write_plan(tmp_path, {"seed": [1, 2]})
    assert read_plan(tmp_path) == {"seed": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == [PLAN]


def test_plan_of_version_0_1_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PLAN).write_bytes(pickle_of_removed_module(monkeypatch))
    assert refusal(tmp_path) == other_version(tmp_path, "0.1")


def test_plan_of_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pickle_of_removed_module(monkeypatch)
    (tmp_path / PLAN).write_bytes(pickle.dumps("98.7.6") + plan)
    assert refusal(tmp_path) == other_version(tmp_path, "98.7.6")


def test_plan_of_changed_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = version("keras-experiments")
    (tmp_path / PLAN).write_bytes(pickle.dumps(own) + pickle_of_removed_module(monkeypatch))
    assert refusal(tmp_path) == other_version(tmp_path, own)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 99, b"\x80\x05X"])
def test_corrupt_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PLAN).write_bytes(content)
    assert refusal(tmp_path).startswith(f"the plan {tmp_path / PLAN} is corrupt: expected the file as it was written")


def test_truncated_plan_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, list(range(99)))
    content = (tmp_path / PLAN).read_bytes()
    (tmp_path / PLAN).write_bytes(content[:-9])
    assert f"the plan {tmp_path / PLAN} is corrupt" in refusal(tmp_path)
