"""Sweeps that were stopped before their last job."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.errors import ConfigError
from experiments.records.plan_file import PLAN, read_plan
from experiments.sweeps.plan import Plan

LAST = "last"
ANEW = ("resume", "workers", "preview", "reuse", "n_trials", "max_retries", "max_failures", "job_timeout")


def new_sweep(config: DictConfig) -> Path:
    """Its folder. Raises ConfigError where that of another one was named."""
    folder = Path(config.hydra.sweep.dir).absolute()
    if (folder / PLAN).exists():
        raise ConfigError(
            f"{folder} holds a sweep already: expected a new folder. "
            "Go on with it by sweep.resume=last, or set hydra.sweep.dir to another one."
        )
    return folder


def stopped_sweep(config: DictConfig, wanted: str) -> Path:
    """The folder of the sweep that `sweep.resume` names: `last`, the name of its folder, or a path.

    Raises ConfigError that lists what there is.
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
        known = ", ".join(named) or "none, as there is no sweep"
        raise ConfigError(
            f"sweep.resume={wanted} is no sweep: expected last or one of: {known}."
            " Name one of these, the path of its folder, or leave sweep.resume out."
        )
    return found


def resumed_plan(folder: Path, arguments: Sequence[str]) -> Plan:
    """The plan, with what may be typed anew. Raises ConfigError for what was decided when the sweep began."""
    plan: Plan = read_plan(folder)
    for override in OverridesParser.create().parse_overrides([word for word in arguments if word not in plan.typed]):
        name = override.key_or_group.removeprefix("sweep.")
        if name not in ANEW:
            raise ConfigError(
                f"{override.input_line} comes too late: the jobs of a sweep are planned when it begins. Expected "
                f"beside sweep.resume what was typed then, hydra/launcher, or a new value of {', '.join(ANEW[1:])} of "
                "sweep. Leave it out, or begin a new sweep."
            )
        OmegaConf.update(plan.settings, name, override.value())
    return plan


def sweeps(root: Path) -> list[Path]:
    """Folders of sweeps, the newest last."""
    return sorted((path.parent for path in root.glob(f"**/{PLAN}")), key=lambda folder: folder.stat().st_mtime)
