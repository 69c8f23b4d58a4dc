"""Plans of this version, of other versions, and corrupt ones."""

import json
import os
import pickle
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from experiments import DISTRIBUTION
from experiments.errors import ConfigError, ExperimentError, TrackingError
from experiments.records.sweep_plan import PICKLED, STUDY, checked_plan, has_plan, plan_record, refuse_links

OWN = version(DISTRIBUTION)
PLANNED = plan_record("ab12", ["seed=1,2"], {"model of all jobs": "0a"}, Path("swept"))
OWNER = "the sweep in swept"


class Trap:
    """Object whose pickle creates a file when it is read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "executed"

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def refusal(plan: Any, kind: type[ExperimentError]) -> str:
    with pytest.raises(kind) as error:
        checked_plan(plan, OWNER)
    assert "\n" not in str(error.value)
    return str(error.value)


def other_version(writer: str) -> str:
    return (
        f"{OWNER} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{OWN}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )


def test_plan_is_read_as_recorded() -> None:
    recorded = plan_record("ab12", ("name=ü ${oc.env:HOME}",), {}, Path("swept"))
    assert checked_plan(json.loads(json.dumps(recorded)), OWNER) == recorded
    assert recorded["version"] == OWN


@pytest.mark.parametrize("first", [b"", pickle.dumps("0.2.0"), pickle.dumps("0.3.0"), b"x"])
def test_pickle_of_earlier_version_is_refused_unread(tmp_path: Path, first: bytes) -> None:
    (tmp_path / PICKLED).write_bytes(first + pickle.dumps(Trap(tmp_path)))
    assert has_plan(tmp_path)
    assert refusal(None, ConfigError) == other_version("0.2 or older")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("writer", "is_read"), [(".".join([*OWN.split(".")[:2], "99"]), True), ("98.7.6", False), ("0.2.9", False)]
)
def test_plan_of_same_minor_version_is_read(writer: str, is_read: bool) -> None:
    plan = PLANNED | {"version": writer}
    if is_read:
        assert checked_plan(plan, OWNER)["id"] == "ab12"
    else:
        assert refusal(plan, ConfigError) == other_version(writer)


@pytest.mark.parametrize(
    "plan",
    [
        *(PLANNED | {"id": wrong} for wrong in ("' OR 1=1 --", "../../victim", "", 3.5, None)),
        *(PLANNED | {"typed": wrong} for wrong in (3, [], [{"a": 1}], [None])),
        *(PLANNED | {"version": wrong} for wrong in (3, None)),
        *([], {}, 3, "plan", [["version", "0.3.0"]]),
    ],
    ids=str,
)
def test_wrongly_typed_plan_is_refused(plan: Any) -> None:
    assert refusal(plan, TrackingError).startswith(f"{OWNER} cannot be used: ")


@pytest.mark.parametrize("lines", [0, 1], ids=["empty", "study without a plan"])
def test_folder_of_process_killed_before_plan_has_no_sweep(tmp_path: Path, lines: int) -> None:
    (tmp_path / STUDY).write_text('{"op_code":0,"study_name":"ab12"}\n' * lines)
    assert not has_plan(tmp_path)


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "0": lambda path, victim: path.symlink_to(victim),
    "0/train.log": lambda path, victim: path.symlink_to(victim / "x"),
    "study.journal": lambda path, victim: path.symlink_to(victim / "missing"),
    "summary": lambda path, victim: os.mkfifo(path),  # noqa: ARG005 - all have the same signature
    "1/checkpoints/best": lambda path, victim: path.symlink_to("../../0"),  # noqa: ARG005
    "tensorboard": lambda path, victim: path.symlink_to(victim),
    "1/tensorboard/train": lambda path, victim: path.symlink_to(victim),
    "tensorboard/#0/train": lambda path, victim: path.symlink_to(victim),
    "tensorboard/#0": lambda path, victim: os.mkfifo(path),  # noqa: ARG005
}


@pytest.mark.parametrize("name", LINKS)
def test_link_or_device_in_sweep_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder, victim = tmp_path / "swept", tmp_path / "victim"
    (folder / name).parent.mkdir(parents=True)
    victim.mkdir()
    refuse_links(folder)
    LINKS[name](folder / name, victim)
    with pytest.raises(TrackingError, match=f"{name} is a link or a device"):
        refuse_links(folder)


def test_links_for_tensorboard_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    for name, target in {"#0": "../0/tensorboard", "#1": "../missing"}.items():
        (tmp_path / "tensorboard" / name).symlink_to(target)
    refuse_links(tmp_path)
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_symlink()) == ["#0", "#1"]
    (tmp_path / "tensorboard" / "#0").rename(tmp_path / "#0")
    with pytest.raises(TrackingError, match="#0 is a link or a device"):
        refuse_links(tmp_path)
