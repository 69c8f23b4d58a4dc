"""The plan of a sweep: the swept values, and all configs as composed when the sweep starts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from typing import Any
from uuid import uuid4

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.config import check, check_values
from experiments.config.explain import EXPLAINED, explain_value, explained
from experiments.errors import ConfigError, close_to
from experiments.records.environment import all_cores
from experiments.records.fingerprint import code_digest
from experiments.sweeps import search_space
from experiments.sweeps.search_space import Cell, Dimension, cell_overrides, dimensions, fixed, grid, is_excluded
from experiments.tracking.redaction import mask_override

CHANGEABLE = (
    *("resume", "join", "storage", "workers", "preview", "reuse", "n_trials"),
    *("max_retries", "max_failures", "job_timeout"),
)
"""Keys of `sweep` that may differ when resuming."""
SHARED = ("logging.tracking_uri", "logging.experiment_name", "monitor.metric", "monitor.mode")
"""Keys with one value in all jobs: of the store, and of the objective unless sweep.objectives names others."""


@dataclass(frozen=True)
class Plan:
    """Plan of a sweep. Its configs are composed at each start, so that editing `conf/` changes no job while it runs.

    `typed` contains all overrides, `fixed` those that all jobs share. `composing` contains the swept keys that Hydra
    has to compose; `bases` maps each combination of their overrides to its config. `objectives` maps each metric to
    "min" or "max".
    """

    typed: tuple[str, ...]
    space: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    composing: frozenset[str]
    settings: DictConfig
    logging: DictConfig
    objectives: Mapping[str, str]
    bases: Mapping[tuple[str, ...], DictConfig] = field(repr=False)
    id: str = field(default_factory=lambda: uuid4().hex[:12])
    """Unique id of the sweep, independent of its folder: the name of its study and a tag of its runs."""

    def cells(self) -> list[Cell]:
        """Combinations of the grid that are not excluded. Samplers draw their own."""
        return [cell for cell in grid(self.space) if not self.excludes(cell)]

    def jobs(self) -> list[tuple[Cell, int]]:
        """Pairs (cell, repeat) of all jobs of a grid, in order."""
        return [(cell, repeat) for cell in self.cells() for repeat in range(self.settings.repeats)]

    def lines(self) -> list[str]:
        """Readable lines of the plan: the shared overrides, then the jobs of a grid or the dimensions of a sampler."""
        shared = f"all jobs: {' '.join(self.fixed)}"
        if self.settings.sampler == "grid":
            return [shared, *(f"#{number} {' '.join(self.overrides(*job))}" for number, job in enumerate(self.jobs()))]
        return [shared, *(f"{dimension.name}: {dimension.interval or dimension.labels}" for dimension in self.space)]

    def excludes(self, cell: Cell) -> bool:
        return is_excluded(self.settings.exclude, cell_overrides(self.space, cell))

    def overrides(self, cell: Cell, repeat: int = 0) -> list[str]:
        """Overrides of one job, without those that all jobs share."""
        first = next(iter(self.bases.values())).seed
        seeds = [f"seed={first + repeat}"] if self.settings.repeats > 1 else []
        return [*cell_overrides(self.space, cell), *seeds]

    def name(self, number: int, cell: Cell, repeat: int) -> str:
        """Name of a job: its number, and its values with the last parts of their keys."""
        pairs = [override.lstrip("+").partition("=") for override in self.overrides(cell, repeat)]
        keys = [key for key, *_ in pairs]
        return " ".join([f"#{number}", *(search_space.short(key, keys) + "".join(value) for key, *value in pairs)])

    def config(self, cell: Cell, repeat: int = 0) -> DictConfig:
        """Config of one job, with its `hydra` node."""
        typed = self.overrides(cell, repeat)
        cfg = self.bases[tuple(override for override in typed if key_of(override) in self.composing)].copy()
        for override in typed:
            if key_of(override) not in self.composing:
                _put(cfg, override)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.overrides.task = [*self.fixed, *typed]
        if self.settings.workers > 1:
            cfg.progress = "none"  # parallel jobs share a terminal, and the cores
            if cfg.runtime.threads is None:
                cfg.runtime.threads = max(1, all_cores() // self.settings.workers)
        return cfg

    def digests(self) -> dict[str, str]:
        """Digests of the code and the config sections of all bases, without settings that may differ when resuming.

        Interpolations are not resolved: they can refer to a secret, the time or the machine.
        """
        found: dict[str, str] = {}
        settings: Any = OmegaConf.to_container(self.settings)
        for chosen, with_hydra in self.bases.items():
            cfg = _without_hydra(with_hydra)
            sections: Any = OmegaConf.to_container(cfg)
            sections["code"] = code_digest(cfg)
            sections["sweep"] = {name: value for name, value in settings.items() if name not in CHANGEABLE}
            del sections["allow_modules"], sections["on_end"]
            for name, section in sections.items():
                text = json.dumps(section, default=str)
                found[f"{name} of {' '.join(chosen) or 'all jobs'}"] = sha256(text.encode()).hexdigest()[:16]
        return found


def make_plan(arguments: Sequence[str], master: DictConfig, loader: ConfigLoader) -> Plan:
    """Composes the configs of all jobs. `master` is the config without the swept overrides.

    If a key occurs twice in `arguments`, the last value counts. Raises ConfigError that names the job.
    """
    parsed = {each.key_or_group: each for each in OverridesParser.create(loader).parse_overrides(list(arguments))}
    typed, settings = list(parsed.values()), master.sweep
    check_values(OmegaConf.create({"sweep": settings}))
    _refuse_resume(typed)
    space = tuple(dimensions(typed, settings.zip))
    _refuse_secrets(typed, space)
    _check_names(space, settings)
    shared = tuple(fixed(typed))
    keys = {key_of(override) for dimension in space for choice in dimension.choices for override in choice}
    # Config groups and added or deleted keys need Hydra; other values are set in a copy of a composed config.
    composing = frozenset(
        key for key in keys if key[0] in "+~" or key in SHARED or loader.get_group_options(key.partition("@")[0])
    )
    bases = {chosen: _composed(loader, master, [*shared, *chosen]) for chosen in _composing_overrides(space, composing)}
    weights = [str(OmegaConf.select(cfg, "model.weights")) for cfg in bases.values()]
    if changing := re.search("runs:/(best|last)", " ".join([*arguments, *weights])):
        raise ConfigError(
            f"{changing[0]} could change between the jobs of a sweep: expected runs:/ID. Set model.weights."
        )
    _require_agreement(bases, SHARED[:2])
    objectives, first = _objectives(settings.objectives), next(iter(bases.values()))
    if not objectives:
        _require_agreement(bases, SHARED[2:])
        objectives = {first.monitor.metric: first.monitor.mode}
    return Plan(tuple(arguments), space, shared, composing, settings, first.logging, objectives, bases)


def _require_agreement(bases: Mapping[tuple[str, ...], DictConfig], keys: Sequence[str]) -> None:
    """Raises ConfigError if jobs have different values of a key that a sweep needs to store and compare its jobs."""
    (first, other), *rest = bases.items()
    for key, (chosen, cfg) in product(keys, rest):
        found = OmegaConf.select(cfg, key), OmegaConf.select(other, key)
        if found[0] != found[1]:
            raise ConfigError(
                f"{key} is {found[1]} in the job {' '.join(first)} and {found[0]} in the job {' '.join(chosen)}: "
                f"expected one value, as the jobs of a sweep are compared. Set one {key}=VALUE."
            )


def composed_master(typed: Sequence[str], config: DictConfig, loader: ConfigLoader) -> DictConfig:
    """Composes the config without swept overrides for `typed` instead of the overrides of this command."""
    parsed = OverridesParser.create(loader).parse_overrides(list(typed))
    return _composed(loader, config, [str(each.input_line) for each in parsed if not each.is_sweep_override()])


def _refuse_resume(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.key_or_group == "resume" and override.value() is not None:
            raise ConfigError(
                f"{override.input_line} resumes a single run, but -m starts a sweep: expected sweep.resume with -m. "
                "Leave it out, and set sweep.resume=last to resume a sweep."
            )


def _refuse_secrets(typed: Sequence[Override], space: Sequence[Dimension]) -> None:
    """Raises ConfigError for a secret typed as text, which the plan and the queue would have to store."""
    settings = [str(each.input_line) for each in typed if str(each.key_or_group).startswith("sweep.")]
    for override in [*settings, *fixed(typed), *(each for part in space for choice in part.choices for each in choice)]:
        masked = mask_override(override)
        if masked != override:
            raise ConfigError(
                f"{masked} contains a secret, which a sweep would have to store in its files: expected the name of an "
                f"environment variable, received its value. Export it, and write '{key_of(override)}=${{oc.env:NAME}}'."
            )


def _check_names(space: Sequence[Dimension], settings: DictConfig) -> None:
    """Raises ConfigError if sweep.exclude names a key that is not swept, or if sweep.repeats and seed conflict."""
    keys = {
        key_of(override).lstrip("+")
        for part in space
        for choice in part.choices or ((f"{part.name}=",),)
        for override in choice
    }
    for rule in settings.exclude:
        for key in set(map(str, rule)) - keys:
            raise ConfigError(
                f"sweep.exclude={settings.exclude} names {key}, which does not vary: expected "
                f"{' or '.join(sorted(keys))}. {close_to(key, keys)}".strip()
            )
    search_space.refuse_unmatched(settings.exclude, space)
    if settings.repeats > 1 and "seed" in keys:
        raise ConfigError(
            f"sweep.repeats={settings.repeats} sets the seeds of each combination: expected a single seed, the first. "
            "Leave out the others, or sweep.repeats."
        )


def _objectives(settings: Mapping[str, str] | None) -> dict[str, str]:
    """Maps each metric to min or max; empty if none is configured."""
    if isinstance(settings, str):
        raise ConfigError(
            f"sweep.objectives={settings}: expected metrics. Write 'sweep.objectives={{{settings}: min}}'."
        )
    for metric, way in (settings or {}).items():
        if way not in ("min", "max"):
            raise ConfigError(f"sweep.objectives.{metric}={way}: expected min or max. Change it.")
    return dict(settings or {})


def _composing_overrides(space: Sequence[Dimension], composing: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Yields every combination of the overrides that Hydra has to compose."""
    parts = [
        [tuple(override for override in choice if key_of(override) in composing) for choice in dimension.choices]
        or [()]
        for dimension in space
    ]
    for combination in product(*(dict.fromkeys(part) for part in parts)):
        yield tuple(override for part in combination for override in part)


def _composed(loader: ConfigLoader, master: DictConfig, overrides: list[str]) -> DictConfig:
    try:
        return loader.load_sweep_config(master, overrides)
    except EXPLAINED as error:
        message = explained(error, "config", overrides)
        raise ConfigError(f"the job {' '.join(overrides)} cannot be composed: {message}") from error


def _put(cfg: DictConfig, override: str) -> None:
    try:
        OmegaConf.update(cfg, key_of(override), search_space.parsed(override)[1], merge=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_value(error, override, "config")) from error


def check_jobs(plan: Plan) -> None:
    """Raises ConfigError that names the first invalid job. It is reported before any job runs."""
    if plan.settings.sampler == "grid":
        configs = [(plan.overrides(cell), plan.config(cell)) for cell in plan.cells()]
    else:
        configs = [(list(overrides), cfg.copy()) for overrides, cfg in plan.bases.items()]
    if not configs:
        raise ConfigError("sweep.exclude leaves no job: expected one at least. Loosen its rules.")
    for typed, cfg in configs:
        try:
            with as_in_its_job(cfg) as job_cfg:
                check(job_cfg)
        except ConfigError as error:
            raise ConfigError(f"the job {' '.join(typed)} cannot run: {error}") from error


@contextmanager
def as_in_its_job(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yields the config that the job receives: without `hydra`, but with resolvable `${hydra:...}` interpolations."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        yield _without_hydra(cfg)
    finally:
        HydraConfig.instance().cfg = before


def _without_hydra(cfg: DictConfig) -> DictConfig:
    found = cfg.copy()
    with open_dict(found):
        del found["hydra"]
    return found


def key_of(override: str) -> str:
    return override.partition("=")[0]
