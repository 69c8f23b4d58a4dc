"""Folders of sweeps: a new one, or that of a stopped sweep to resume."""

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from experiments.errors import ConfigError, reading
from experiments.records.plan_file import PICKLED, PLAN, has_plan, read_plan
from experiments.records.trust import EXECUTED, check_targets, vetted_overrides
from experiments.sweeps.plan import CHANGEABLE, Plan, as_in_its_job, composed_master, key_of, make_plan
from experiments.sweeps.search_space import parsed

logger = logging.getLogger(__name__)
LAST = "last"
REMEDY = (
    "start the same command again without sweep.resume, with sweep.reuse=true and in another hydra.sweep.dir: "
    "a grid takes the results of finished jobs from the store, random and tpe draw again"
)
"""Remedy for a sweep that cannot be resumed."""


def new_sweep(config: DictConfig) -> Path:
    """Folder of a new sweep. Raises ConfigError if it already contains a sweep."""
    folder = Path(config.hydra.sweep.dir).absolute()
    if has_plan(folder):
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
    if wanted == LAST and has_plan(own):  # named by hydra.sweep.dir
        return own
    folders = sweeps(own.parents[1])
    named = {folder.name: folder for folder in folders}
    if wanted == LAST and folders:
        return folders[-1]
    found = named.get(wanted, Path(wanted).absolute())
    if not has_plan(found):
        known = ", ".join(named) or "none found"
        raise ConfigError(
            f"sweep.resume={wanted} does not name a sweep: expected last or one of: {known}."
            " Name one of these, the path of its folder, or leave sweep.resume out."
        )
    return found


def resumed_plan(folder: Path, arguments: Sequence[str], config: DictConfig, loader: ConfigLoader) -> Plan:
    """Plans a stopped sweep again from its stored overrides, the changed ones of this command, and the current `conf/`.

    Raises TrackingError for stored overrides that could execute anything, unless this command contains them. Raises
    ConfigError for overrides that cannot change, and if the config of a job differs from that of the start.
    """
    stored, owner = read_plan(folder), f"the sweep in {folder}"
    changed = [
        each for each in arguments if key_of(each).removeprefix("sweep.") in (*CHANGEABLE, "allow_modules", "on_end")
    ]
    for override in arguments:
        if override not in {*stored["typed"], *changed}:
            raise ConfigError(
                f"{override} comes too late: the jobs of a sweep are planned when it starts. Expected with "
                f"sweep.resume the original overrides, hydra/launcher, or a new value of {', '.join(CHANGEABLE[1:])} "
                "of sweep. Leave it out, or start a new sweep."
            )
    # Unlike those of a run, the plain settings of `sweep` apply again.
    plain = [each for each in stored["typed"] if re.fullmatch(r"sweep\.\w+=[^$\\/~]*", each)]
    plain = [each for each in plain if not EXECUTED.search(each)]
    kept = vetted_overrides(stored["typed"], [*arguments, *plain], owner)
    typed = [*(each for each in kept if key_of(each) not in map(key_of, changed)), *changed]
    plan = replace(make_plan(typed, composed_master(typed, config, loader), loader), id=stored["id"])
    _check_targets(plan, config, owner)
    _refuse_changes(stored, plan.digests(), owner, [each for each in stored["typed"] if each not in {*kept, *changed}])
    return plan


def _check_targets(plan: Plan, config: DictConfig, owner: str) -> None:
    swept = [parsed(override) for part in plan.space for choice in part.choices for override in choice]
    trees: list[Any] = [{"swept": [{key.rpartition(".")[2]: value} for key, value in swept]}]
    trees.append({"sweep": OmegaConf.to_container(plan.settings, resolve=True)})
    for cfg in plan.bases.values():
        with as_in_its_job(cfg) as job_cfg:
            trees.append(OmegaConf.to_container(job_cfg, resolve=True))
    with as_in_its_job(config):  # the targets that this command names are allowed
        for tree in trees:
            check_targets(tree, owner, config.allow_modules)


def _refuse_changes(stored: Mapping[str, Any], current: Mapping[str, str], owner: str, left_out: Sequence[str]) -> None:
    with reading(owner):
        before = stored["digests"]
        changed = [name for name in {**before, **current} if before.get(name) != current.get(name)]
    for name in changed:
        if not name.startswith("code of "):
            again = f"type {shlex.join(left_out)} again" if left_out else "repeat the overrides of the start"
            raise ConfigError(
                f"{owner} would continue with other jobs: {name} has changed. Expected the configuration of its start. "
                f"Restore it in conf/, {again}, or {REMEDY}."
            )
    if changed:
        logger.warning("The code has changed since this sweep began: the remaining jobs run with the new code.")


def sweeps(root: Path) -> list[Path]:
    """Folders of all sweeps at and below `root`, newest last."""
    found = {path.parent for name in (PLAN, PICKLED) for path in root.glob(f"**/{name}")}
    return sorted(found, key=lambda folder: folder.stat().st_mtime)
