"""Folders of sweeps: a new one, or that of a stopped sweep to resume."""

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.study._frozen import FrozenStudy

from experiments.errors import ConfigError, reading
from experiments.records.sweep_plan import STUDY, checked_plan, has_plan, refuse_links
from experiments.records.trust import EXECUTED, check_targets, vetted_overrides
from experiments.sweeps.plan import CHANGEABLE, Plan, as_in_its_job, composed_master, key_of, make_plan
from experiments.sweeps.search_space import parsed
from experiments.sweeps.study_storage import REMEDY, storage

logger = logging.getLogger(__name__)
LAST = "last"
_ANY = "ANY0TEXT"
"""Stands for `*` while a pattern of folders is resolved and escaped."""


def new_sweep(config: DictConfig) -> Path:
    """Folder of a new sweep. Raises ConfigError if it already contains a sweep."""
    folder = Path(config.hydra.sweep.dir).absolute()
    if has_plan(folder):
        raise ConfigError(
            f"{folder} already contains a sweep: expected a new folder. "
            "Resume it with sweep.resume=last, or set hydra.sweep.dir to another one."
        )
    return folder


def stopped_sweep(config: DictConfig, wanted: str) -> tuple[Path, Any]:
    """Folder and plan, which is not trusted, of the sweep with this folder name, path, or id in `sweep.storage`.

    `last` is the newest one that a command with this `hydra.sweep.dir` has written. Raises ConfigError that lists the
    existing sweeps.
    """
    stored, path = _stored_sweeps(config), Path(wanted).absolute()
    written = [each for each in stored if each[0].match(_pattern(config))]
    found = written if wanted == LAST else [each for each in stored if wanted == each[1] or path == each[0]]
    if config.sweep.storage is None and not found and has_plan(path):
        found = [(path, path.name, [])]
    if not found:
        key, names = _key(config), ", ".join(name for _, name, _ in stored) or "none found"
        choice = "Name one of these, the path of its folder, or leave sweep.resume out."
        if config.sweep.join is not None:
            choice = "Name one of these or the path of its folder."
        database = "" if config.sweep.storage else " A sweep in a database needs sweep.storage."
        raise ConfigError(f"{key}={wanted} does not name a sweep: expected last or one of: {names}. {choice}{database}")
    folder, name, studies = found[-1]
    if config.sweep.storage is not None and not (found[-1] in written and folder.is_dir()):
        folder = Path(config.hydra.sweep.dir).absolute()  # A record must not choose where this machine writes.
    refuse_links(folder)
    if config.sweep.storage is None and (folder / STUDY).exists():
        studies = storage(None, folder).get_all_studies()
    logger.info("sweep %s in %s", name, folder)
    return folder, _plan_of(studies, f"the sweep in {folder}")


def _key(config: DictConfig) -> str:
    """Returns the key by which the user has named the sweep."""
    return "sweep.resume" if config.sweep.join is None else "sweep"


def _stored_sweeps(config: DictConfig) -> list[tuple[Path, str, list[FrozenStudy]]]:
    """Sweeps in `sweep.storage`, or in the folders that commands with this `hydra.sweep.dir` create; newest last.

    They are folders, names of the folders or ids in the database, and studies of the latter, which are not trusted.
    """
    if config.sweep.storage is None:
        folders = filter(has_plan, Path("/").glob(_pattern(config)[1:]))
        return [(each, each.name, []) for each in sorted(folders, key=lambda folder: folder.stat().st_mtime)]
    studies = storage(config.sweep.storage, Path()).get_all_studies()
    plans = [(each.user_attrs.get("plan"), each) for each in studies]
    found = [(str(plan.get("folder")), study) for plan, study in plans if isinstance(plan, dict)]
    with reading("the sweeps in sweep.storage"):
        return [(Path(folder).resolve(), each.study_name, [each]) for folder, each in found]  # without links and `..`


def _pattern(config: DictConfig) -> str:
    """Pattern of the absolute paths that `hydra.sweep.dir` can have at other times and with other overrides."""
    typed: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    resolved = config.copy()
    with read_write(resolved), open_dict(resolved):
        resolved.hydra.sweep.dir = re.sub(r"\$\{(?:now:|hydra\.)[^{}]*\}", _ANY, str(typed["dir"]))
    return escape(str(Path(resolved.hydra.sweep.dir).absolute())).replace(_ANY, "*")


def _plan_of(studies: Sequence[FrozenStudy], owner: str) -> Any:
    """Plan of the sweep with these studies, or None if a version without plans in queues has written it."""
    with reading(owner):
        for study in studies:
            if (plan := study.user_attrs.get("plan")) is not None:
                if plan["id"] != study.study_name:
                    raise ValueError("its plan is that of another sweep")
                return plan
    return None


def resumed_plan(folder: Path, found: Any, arguments: Sequence[str], config: DictConfig, loader: ConfigLoader) -> Plan:
    """Plans a stopped sweep again from its stored overrides, the changed ones of this command, and the current `conf/`.

    Raises TrackingError for stored overrides that could execute anything, unless this command contains them. Raises
    ConfigError for overrides that cannot change, and if the config of a job differs from that of the start.
    """
    owner = f"the sweep in {folder}"
    stored = checked_plan(found, owner)
    changed = [
        each for each in arguments if key_of(each).removeprefix("sweep.") in (*CHANGEABLE, "allow_modules", "on_end")
    ]
    for override in arguments:
        if override not in {*stored["typed"], *changed}:
            raise ConfigError(
                f"{override} comes too late: the jobs of a sweep are planned when it starts. Expected with "
                f"{_key(config)} the original overrides, hydra/launcher, or a new value of {', '.join(CHANGEABLE[2:])} "
                "of sweep. Leave it out, or start a new sweep."
            )
    # Unlike those of a run, the plain settings of `sweep` apply again.
    plain = [each for each in stored["typed"] if re.fullmatch(r"sweep\.\w+=[^$\\/~]*", each)]
    plain = [each for each in plain if not EXECUTED.search(each)]
    kept = vetted_overrides(stored["typed"], [*arguments, *plain], owner)
    typed = [*(each for each in kept if key_of(each) not in map(key_of, changed)), *changed]
    plan = replace(make_plan(typed, composed_master(typed, config, loader), loader), id=stored["id"])
    _check_targets(plan, config, owner)
    left_out = [each for each in stored["typed"] if each not in {*kept, *changed}]
    _refuse_changes(stored, plan.digests(), owner, left_out, joins=config.sweep.join is not None)
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


def _refuse_changes(
    stored: Mapping[str, Any], current: Mapping[str, str], owner: str, left_out: Sequence[str], *, joins: bool
) -> None:
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
    if changed and joins:
        raise ConfigError(
            f"{owner} runs with other code: expected that of its start on each machine. Update this checkout."
        )
    if changed:
        logger.warning("The code has changed since this sweep began: the remaining jobs run with the new code.")
