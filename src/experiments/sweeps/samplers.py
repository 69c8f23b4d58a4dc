"""What draws the cells of a sweep and what gives hopeless jobs up: optuna's, by a short name or by `_target_`."""

from collections.abc import Mapping
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from experiments.build import build
from experiments.errors import ConfigError, close_to

SAMPLERS = {"grid": "optuna.samplers.RandomSampler", "random": "optuna.samplers.RandomSampler"}
SAMPLERS |= {"tpe": "optuna.samplers.TPESampler"}
PRUNERS = {"none": "optuna.pruners.NopPruner", "median": "optuna.pruners.MedianPruner"}
PRUNERS |= {"hyperband": "optuna.pruners.HyperbandPruner", "asha": "optuna.pruners.SuccessiveHalvingPruner"}
STARTUP = 12
"""More trials than samplers draw at random before they begin to compute."""


def sampler(node: str | DictConfig) -> BaseSampler:
    found: BaseSampler = _chosen(node, SAMPLERS, "sweep.sampler")
    return found


def pruner(node: str | DictConfig) -> BasePruner:
    found: BasePruner = _chosen(node, PRUNERS, "sweep.pruner")
    return found


def try_out(node: str | DictConfig, distributions: Mapping[str, BaseDistribution], directions: list[Any]) -> None:
    """Raises ConfigError where a sampler lacks a package, or cannot draw from such a space, which optuna says late."""
    study = optuna.create_study(sampler=sampler(node), directions=directions)
    try:
        for number in range(STARTUP):
            trial = study.ask(dict(distributions))
            study.tell(trial, [float(number)] * len(directions))
    except (ImportError, ValueError) as error:
        raise _unusable(node, "sweep.sampler", error) from error


def _chosen(node: str | DictConfig, known: dict[str, str], key: str) -> Any:
    if isinstance(node, str) and node not in known:
        raise ConfigError(
            f"{key}={node} is unknown: expected one of {', '.join(known)}, or one of optuna's as "
            f"'{key}={{_target_: optuna...}}'. {close_to(node, known)}".strip()
        )
    target = OmegaConf.create({"_target_": known[node]}) if isinstance(node, str) else node
    try:
        return build(target)
    except (ConfigError, ImportError) as error:
        raise _unusable(node, key, error) from error


def _unusable(node: str | DictConfig, key: str, error: Exception) -> ConfigError:
    first = str(error).strip().partition("\n")[0].removesuffix(".")
    return ConfigError(f"{key}={node} cannot be used: {first}. Change it, or install what it needs.")
