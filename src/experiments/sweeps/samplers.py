"""Samplers and pruners of Optuna, selected by a short name or by `_target_`."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.config.build import build
from experiments.errors import ConfigError, close_to
from experiments.sweeps.plan import Plan
from experiments.sweeps.search_space import Dimension

KNOWN = {
    "sampler": {
        "grid": "optuna.samplers.RandomSampler",  # draws nothing: the jobs of a grid are queued with their values
        "random": "optuna.samplers.RandomSampler",
        "tpe": "optuna.samplers.TPESampler",
    },
    "pruner": {
        "none": "optuna.pruners.NopPruner",
        "median": "optuna.pruners.MedianPruner",
        "hyperband": "optuna.pruners.HyperbandPruner",
        "asha": "optuna.pruners.SuccessiveHalvingPruner",
    },
}
"""Keys of `sweep`, and the classes of Optuna behind their short names."""
STARTUP = 12
"""Number of trials in a test of a sampler: more than samplers draw at random before they fit a model."""


def try_out(node: str | DictConfig, distributions: Mapping[str, BaseDistribution], directions: list[Any]) -> None:
    """Raises ConfigError if the sampler lacks a package or does not support the space, which Optuna reports late."""
    study = optuna.create_study(sampler=chosen(node, "sampler"), directions=directions)
    try:
        for number in range(STARTUP):
            trial = study.ask(dict(distributions))
            study.tell(trial, [float(number)] * len(directions))
    except (ImportError, ValueError) as error:
        raise _unusable(node, "sampler", error) from error


def chosen(node: str | DictConfig, key: str) -> Any:
    """Builds the sampler or the pruner of Optuna that `sweep.sampler` or `sweep.pruner` names."""
    known = KNOWN[key]
    if isinstance(node, str) and node not in known:
        raise ConfigError(
            f"sweep.{key}={node} is unknown: expected one of {', '.join(known)}, or one of optuna's as "
            f"'sweep.{key}={{_target_: optuna...}}'. {close_to(node, known)}".strip()
        )
    target = OmegaConf.create({"_target_": known[node]}) if isinstance(node, str) else node
    try:
        return build(target)
    except (ConfigError, ImportError) as error:
        raise _unusable(node, key, error) from error


def _unusable(node: str | DictConfig, key: str, error: Exception) -> ConfigError:
    first = str(error).strip().partition("\n")[0].removesuffix(".")
    return ConfigError(f"sweep.{key}={node} cannot be used: {first}. Change it, or install its dependencies.")


def count_again(study: Study, trial: Trial, equal: Sequence[FrozenTrial]) -> None:
    """Ends a draw with the result of the equal job, if there is one, so that the sampler takes it into account."""
    done = [each for each in equal if each.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    for step, value in done[0].intermediate_values.items() if done else ():
        trial.report(value, step)
    complete = done and done[0].state == TrialState.COMPLETE
    study.tell(trial, done[0].values if complete else None, done[0].state if done else TrialState.FAIL)


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    return {dimension.name: distribution(dimension) for dimension in plan.space}


def distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.interval is None:
        return CategoricalDistribution(dimension.labels)
    low, high = cast(tuple[float, float], (dimension.interval.start, dimension.interval.end))
    log = "log" in dimension.interval.tags  # as in tag(log, interval(1e-5, 1e-1))
    if low > high or (log and low <= 0):
        bounds = f"{dimension.name}=interval({low:g},{high:g})"
        raise ConfigError(f"{bounds}: expected the lower bound first, and above 0 for log. Change them.")
    if isinstance(low, int):  # as in int(interval(1, 9))
        return IntDistribution(low, int(high), log=log)
    return FloatDistribution(low, high, log=log)
