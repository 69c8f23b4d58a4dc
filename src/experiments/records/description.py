"""Describes a run to users: its chosen options and other params, its name, its command, its data and its results."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.config.registry import COMBINED
from experiments.data.base import DataSpec
from experiments.records.fingerprint import values
from experiments.records.params import flatten
from experiments.records.trust import typed_overrides
from experiments.tracking.names import LONGEST_KEY
from experiments.tracking.notes import code
from experiments.tracking.redaction import mask, mask_command


def choices(cfg: DictConfig) -> dict[str, str]:
    """Returns the option of each group as typed, several joined by `+`. A user's primary config may lack groups."""
    # Hydra does not record lists of options. The keys of such a group are the names of its options.
    lists = {name: cfg.get(name) or {} for name in COMBINED if name in cfg}
    found = {name: "+".join(key for key in node if node[key] is not None) or "none" for name, node in lists.items()}
    found |= dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    hidden = re.compile(r"(?:.*/)?(?:hydra|schema|shared|logging)(?:[/@].*)?")
    return {name: option for name, option in sorted(found.items()) if option and not hidden.fullmatch(name)}


def params(cfg: DictConfig) -> dict[str, str]:
    """Returns the values by which users compare runs: the chosen options, and all values that can change a result."""
    kept = {key: value for key, value in values(cfg).items() if not key.endswith("_target_")}
    return flatten(DictConfig(choices(cfg))) | {"epochs": str(cfg.epochs)} | kept


def run_name(cfg: DictConfig) -> str:
    """Returns the name that a user has given the run, else model and data set; the tracker completes the name."""
    parts = [choices(cfg).get(name) or cfg[name]._target_.rpartition(".")[2] for name in ("model", "data")]
    return str(cfg.logging.run_name or f"{'-'.join(parts)}-")[:LONGEST_KEY]


def command(start: str, typed: Iterable[str], hydra: Any) -> str:
    """Returns a command with these overrides, one per line, as MLflow's page does not wrap code; secrets are masked."""
    options = [] if hydra.job.config_name in (None, "config") else [f"--config-name={hydra.job.config_name}"]
    typed = [*(each for each in hydra.overrides.hydra if each.startswith("hydra.searchpath=")), *typed]
    options += [f"--config-dir={each.path}" for each in hydra.runtime.config_sources if each.provider == "command-line"]
    return code(" \\\n    ".join([start, *(mask_command([each]) for each in (*options, *typed))]), block=True)


def at_start(specs: Mapping[str, DataSpec], threads: int | None, weights: object = None) -> str:
    """Returns the command that repeats the run, and a line on its data.

    The command includes the `threads` of a sweep, and the `weights` as resolved, as the best run may be another later.
    """
    train, counts = specs["train"], ", ".join(f"{spec.num_examples:,} {name}" for name, spec in specs.items())
    data = f"Data {code(mask(train.source))}: {counts} examples, {train.num_classes:,} classes, {train.inputs}"
    typed = [override for override in typed_overrides() if not override.startswith(("resume=", "sweep."))]
    named = ("model.weights=runs:", "model.weights=models:")
    typed = [f"model.weights={weights}" if override.startswith(named) else override for override in typed]
    typed += [f"runtime.threads={threads}"] if threads and "runtime.threads=" not in " ".join(typed) else []
    return f"{command('experiments train', typed, HydraConfig.get())}\n\n{data}" if HydraConfig.initialized() else data


def at_end(metric: str, value: float, epoch: int, epochs: int, tested: Mapping[str, float], seconds: float) -> str:
    """Returns the results of a finished run in one line. The best `epoch` counts from 0."""
    metrics = "".join(f"{code(name)} {number:.4g}, " for name, number in tested.items())
    return f"Best {code(metric)} {value:.4g} in epoch {epoch + 1} of {epochs}; {metrics}{seconds:.0f} s."
