"""File of a sweep's plan: plain data, written when the sweep starts and read when it is resumed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError, reading
from experiments.files import write_atomically
from experiments.records.environment import package_versions
from experiments.records.trust import read_record

PLAN, PICKLED = "plan.json", "plan.pkl"
"""File of the plan, and that of versions 0.1 and 0.2, which is not read, because a pickle can execute any code."""


def has_plan(folder: Path) -> bool:
    return (folder / PLAN).is_file() or (folder / PICKLED).is_file()


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    content = {"version": package_versions()["experiments"], **plan}
    write_atomically(folder / PLAN, json.dumps(content, ensure_ascii=False, indent=1), private=True)


def read_plan(folder: Path) -> dict[str, Any]:
    """Returns the plan, of which only `id`, a word, and `typed`, overrides, have known types.

    Raises ConfigError if an incompatible version has written the file, and TrackingError if it is corrupt or the folder
    has links, as the sweep writes to it. Versions that differ only in the last number read each other's files.
    """
    writer, own = "0.2 or older", package_versions()["experiments"]
    if (folder / PLAN).is_file():
        with reading(f"the sweep in {folder}"):
            for path in folder.rglob("*"):
                # These are only shown: links for TensorBoard, and `resumed` in a job of a copied sweep.
                shown = path.name == "resumed" or path.parent == folder / "tensorboard"
                if not shown if path.is_symlink() else not (path.is_file() or path.is_dir()):
                    raise ValueError(f"{path.relative_to(folder)} is a link or a device")
            plan: dict[str, Any] = read_record(folder / PLAN, "a sweep")
            writer = plan["version"][:30]
            if not re.fullmatch(r"\w{1,32}", plan["id"]) or not "".join(plan["typed"]):
                raise ValueError(f"{PLAN} has no id or no overrides")
        if writer.split(".")[:2] == own.split(".")[:2]:
            return plan
    raise ConfigError(
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{own}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )
