"""The file of a sweep's plan: written when the sweep starts, read by its workers and when it is resumed."""

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
"""The version whose files hold the plan alone, as an object of a module that is gone."""


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


def write_plan(folder: Path, plan: object) -> None:
    """Writes two pickles into one file: the version of this package, which any version can read, and the plan."""
    write_atomically(folder / PLAN, pickle.dumps(_version()) + pickle.dumps(plan))


def read_plan(folder: Path) -> Any:
    """The plan. Raises ConfigError if another version has written the file, or if it is damaged.

    Versions that differ in the last number only, as 0.2.1 and 0.2.2, read each other's files.
    """
    file, own, writer = io.BytesIO((folder / PLAN).read_bytes()), _version(), UNVERSIONED
    try:
        first = pickle.load(file)
        if isinstance(first, str):
            writer = first
            if writer.split(".")[:2] == own.split(".")[:2]:
                return pickle.load(file)
    except (ImportError, AttributeError):
        pass  # names a class that this version does not have
    except Exception as error:  # bytes that are no pickle raise nearly anything
        raise ConfigError(
            f"the plan {folder / PLAN} is damaged: expected the file as it was written, received one that cannot be "
            "read. Start the same command again without sweep.resume, with sweep.reuse=true and in another "
            "hydra.sweep.dir: a grid takes the jobs that finished from the store, random and tpe draw again."
        ) from error
    raise ConfigError(
        f"the sweep in {folder} was planned by version {writer}: expected a plan of this code, which is of version "
        f"{own}. Start the same command again without sweep.resume and in another hydra.sweep.dir: its jobs run "
        "again, as sweep.reuse=true takes runs of the same code only."
    )
