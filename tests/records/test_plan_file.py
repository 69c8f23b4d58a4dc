"""Plan files of this version, of other versions, and corrupt ones."""

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
from experiments.records.plan_file import PICKLED, PLAN, has_plan, read_plan, write_plan

OWN = version(DISTRIBUTION)
PLANNED = {"id": "ab12", "typed": ["seed=1,2"], "digests": {"model of all jobs": "0a"}}


class Trap:
    """Object whose pickle creates a file when it is read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "executed"

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def refusal(folder: Path, kind: type[ExperimentError]) -> str:
    with pytest.raises(kind) as error:
        read_plan(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def other_version(folder: Path, writer: str) -> str:
    return (
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{OWN}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )


def test_plan_is_read_as_written(tmp_path: Path) -> None:
    write_plan(tmp_path, PLANNED)
    write_plan(tmp_path, PLANNED | {"typed": ["name=ü ${oc.env:HOME}"]})
    assert read_plan(tmp_path) == PLANNED | {"typed": ["name=ü ${oc.env:HOME}"], "version": OWN}
    assert [path.name for path in tmp_path.iterdir()] == [PLAN]
    assert (tmp_path / PLAN).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("first", [b"", pickle.dumps("0.2.0"), pickle.dumps("0.3.0"), b"x"])
def test_pickle_of_earlier_version_is_refused_unread(tmp_path: Path, first: bytes) -> None:
    (tmp_path / PICKLED).write_bytes(first + pickle.dumps(Trap(tmp_path)))
    assert has_plan(tmp_path)
    assert refusal(tmp_path, ConfigError) == other_version(tmp_path, "0.2 or older")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("writer", "is_read"), [(".".join([*OWN.split(".")[:2], "99"]), True), ("98.7.6", False), ("0.2.9", False)]
)
def test_plan_of_same_minor_version_is_read(tmp_path: Path, writer: str, is_read: bool) -> None:
    (tmp_path / PLAN).write_text(json.dumps(PLANNED | {"version": writer}))
    if is_read:
        assert read_plan(tmp_path)["id"] == "ab12"
    else:
        assert refusal(tmp_path, ConfigError) == other_version(tmp_path, writer)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "' OR 1=1 --"},
        {"id": "../../victim"},
        {"id": ""},
        {"id": 3.5},
        {"id": None},
        {"typed": 3},
        {"typed": []},
        {"typed": [{"a": 1}]},
        {"typed": [None]},
        {"version": 3},
        {"version": None},
    ],
    ids=str,
)
def test_wrongly_typed_plan_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / PLAN).write_text(json.dumps({"version": OWN, **PLANNED, **changes}))
    assert refusal(tmp_path, TrackingError).startswith(f"the sweep in {tmp_path} cannot be used: ")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x00" * 99, b"\x80\x05X", b"[" * 99_999, b"[]", b"{}", b"3", pickle.dumps("0.3.0"), b"\xff"],
)
def test_corrupt_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PLAN).write_bytes(content)
    assert "cannot be used: " in refusal(tmp_path, TrackingError)


def test_truncated_plan_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, PLANNED)
    content = (tmp_path / PLAN).read_bytes()
    for length in range(len(content)):
        (tmp_path / PLAN).write_bytes(content[:length])
        assert f"{tmp_path.name}/{PLAN} of a sweep cannot be used: " in refusal(tmp_path, TrackingError)


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "0": lambda path, victim: path.symlink_to(victim),
    "0/train.log": lambda path, victim: path.symlink_to(victim / "x"),
    "study.journal": lambda path, victim: path.symlink_to(victim / "missing"),
    "opened.json": lambda path, victim: os.mkfifo(path),  # noqa: ARG005 - all have the same signature
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
    write_plan(folder, PLANNED)
    assert read_plan(folder)["id"] == "ab12"
    LINKS[name](folder / name, victim)
    assert f"{name} is a link or a device" in refusal(folder, TrackingError)


def test_links_for_tensorboard_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    write_plan(tmp_path, PLANNED)
    for name, target in {"#0": "../0/tensorboard", "#1": "../missing"}.items():
        (tmp_path / "tensorboard" / name).symlink_to(target)
    assert read_plan(tmp_path)["id"] == "ab12"
