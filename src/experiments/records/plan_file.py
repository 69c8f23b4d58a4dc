"""File of a sweep's plan, written at the start of the sweep and read by its workers and by a resumed sweep."""

import io
import pickle
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments import DISTRIBUTION
from experiments.errors import ConfigError
from experiments.files import write_atomically

PLAN = "plan.pkl"
UNVERSIONED = "0.1"
"""Version whose files contain the plan without a version, as an object of a module that no longer exists."""


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


def write_plan(folder: Path, plan: object) -> None:
    """Writes two pickles into one file: the version of this package, which every version can read, and the plan."""
    write_atomically(folder / PLAN, pickle.dumps(_version()) + pickle.dumps(plan))


def read_plan(folder: Path) -> Any:
    """Returns the plan. Raises ConfigError if an incompatible version has written the file, or if it is corrupt.

    Versions that differ only in the last number, such as 0.2.1 and 0.2.2, read each other's files.
    """
    file, own, writer = io.BytesIO((folder / PLAN).read_bytes()), _version(), UNVERSIONED
    try:
        first = pickle.load(file)
        if isinstance(first, str):
            writer = first
            if writer.split(".")[:2] == own.split(".")[:2]:
                return pickle.load(file)
    except (ImportError, AttributeError):
        pass  # the pickle refers to a class that this version does not have
    except Exception as error:  # pickle raises almost any type of error for invalid bytes
        raise ConfigError(
            f"the plan {folder / PLAN} is corrupt: expected the file as it was written, received one that cannot be "
            "read. Start the same command again without sweep.resume, with sweep.reuse=true and in another "
            "hydra.sweep.dir: a grid takes the results of finished jobs from the store, random and tpe draw again."
        ) from error
    raise ConfigError(
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{own}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )
