"""Folders of sweeps: a new one, or that of a stopped sweep to resume."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.errors import ConfigError
from experiments.records.plan_file import PLAN, read_plan
from experiments.sweeps.plan import Plan

LAST = "last"
CHANGEABLE = ("resume", "workers", "preview", "reuse", "n_trials", "max_retries", "max_failures", "job_timeout")
"""Keys of `sweep` that may differ when resuming."""


def new_sweep(config: DictConfig) -> Path:
    """Folder of a new sweep. Raises ConfigError if it already contains a sweep."""
    folder = Path(config.hydra.sweep.dir).absolute()
    if (folder / PLAN).exists():
        raise ConfigError(
            f"{folder} already contains a sweep: expected a new folder. "
            "Resume it with sweep.resume=last, or set hydra.sweep.dir to another one."
        )
    return folder


def stopped_sweep(config: DictConfig, wanted: str) -> Path:
    """Folder of the sweep that `sweep.resume` names: `last`, the name of its folder, or a path.

    Raises ConfigError that lists the existing sweeps.
    """
    own = Path(config.hydra.sweep.dir).absolute()
    if wanted == LAST and (own / PLAN).is_file():  # named by hydra.sweep.dir
        return own
    folders = sweeps(own.parents[1])
    named = {folder.name: folder for folder in folders}
    if wanted == LAST and folders:
        return folders[-1]
    found = named.get(wanted, Path(wanted).absolute())
    if not (found / PLAN).is_file():
        known = ", ".join(named) or "none found"
        raise ConfigError(
            f"sweep.resume={wanted} does not name a sweep: expected last or one of: {known}."
            " Name one of these, the path of its folder, or leave sweep.resume out."
        )
    return found


def resumed_plan(folder: Path, arguments: Sequence[str]) -> Plan:
    """Plan of a stopped sweep with the new settings. Raises ConfigError for overrides that cannot change."""
    plan: Plan = read_plan(folder)
    for override in OverridesParser.create().parse_overrides([each for each in arguments if each not in plan.typed]):
        name = override.key_or_group.removeprefix("sweep.")
        if name not in CHANGEABLE:
            raise ConfigError(
                f"{override.input_line} comes too late: the jobs of a sweep are planned when it starts. Expected with "
                f"sweep.resume the original overrides, hydra/launcher, or a new value of {', '.join(CHANGEABLE[1:])} "
                "of sweep. Leave it out, or start a new sweep."
            )
        OmegaConf.update(plan.settings, name, override.value())
    return plan


def sweeps(root: Path) -> list[Path]:
    """Folders of all sweeps at and below `root`, newest last."""
    return sorted((path.parent for path in root.glob(f"**/{PLAN}")), key=lambda folder: folder.stat().st_mtime)
