"""Record of a sweep's plan: plain data, stored when the sweep starts and read when it is resumed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError, reading
from experiments.records.environment import package_versions

STUDY, PICKLED = "study.journal", "plan.pkl"
"""File of the queue, and the plan of versions 0.1 and 0.2, which is not read, because a pickle can execute any code."""


def has_plan(folder: Path) -> bool:
    """Returns True if a sweep was planned in the folder. A process killed before that leaves a queue without a plan."""
    if not (folder / STUDY).is_file():  # A pipe would block.
        return (folder / PICKLED).is_file()
    with (folder / STUDY).open("rb") as file:  # One of the first lines contains the plan.
        return b'"user_attr":{"plan":' in file.read(10_000)


def plan_record(identity: str, typed: Sequence[str], digests: Mapping[str, str], folder: Path) -> dict[str, Any]:
    version = package_versions()["experiments"]
    return {"version": version, "id": identity, "typed": list(typed), "digests": digests, "folder": str(folder)}


def checked_plan(plan: Any, owner: str) -> dict[str, Any]:
    """Returns the plan, of which only `id`, a word, and `typed`, overrides, have known types. None has no version.

    Raises ConfigError if an incompatible version has written it, and TrackingError if it is wrong. Versions that differ
    only in the last number read each other's plans.
    """
    writer, own = "0.2 or older", package_versions()["experiments"]
    if plan is not None:
        with reading(owner):
            writer = plan["version"][:30]
            if not re.fullmatch(r"\w{1,32}", plan["id"]) or not "".join(plan["typed"]):
                raise ValueError("its plan has no id or no overrides")
        if writer.split(".")[:2] == own.split(".")[:2]:
            return dict(plan)
    raise ConfigError(
        f"{owner} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{own}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )


def refuse_links(folder: Path) -> None:
    """Raises TrackingError if the folder of a sweep has links or devices, as the sweep writes to it."""
    with reading(f"the sweep in {folder}"):
        for path in folder.rglob("*"):
            # These are only shown: links for TensorBoard, and `resumed` in a job of a copied sweep.
            shown = path.name == "resumed" or path.parent == folder / "tensorboard"
            if not shown if path.is_symlink() else path.exists() and not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path.relative_to(folder)} is a link or a device")
