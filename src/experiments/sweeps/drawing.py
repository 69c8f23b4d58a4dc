"""Draws the cells of a sweep that has no grid."""

import math
from collections.abc import Hashable, Iterable
from typing import cast

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.errors import ConfigError
from experiments.sweeps.plan import Plan
from experiments.sweeps.space import Cell, Dimension

TRIES = 1000
"""Draws after which a sampler that meets excluded cells only is given up."""


def draw(study: Study, plan: Plan, jobs: Iterable[FrozenTrial]) -> Trial | None:
    """A cell that none of `jobs` has; None where all have been drawn. Raises ConfigError where it finds none."""
    drawn = {_key(trial.params): trial for trial in jobs}
    if len(drawn) >= _size(plan):
        return None
    for _ in range(TRIES):
        trial = study.ask(distributions(plan))
        if plan.excludes(dict(trial.params)):
            study.tell(trial, state=TrialState.FAIL)
        elif _key(trial.params) in drawn:
            _count_again(study, trial, drawn[_key(trial.params)])
        else:
            return trial
    raise ConfigError(f"sweep.exclude left out {TRIES} draws of sweep.sampler in a row. Loosen its rules.")


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    return {dimension.name: _distribution(dimension) for dimension in plan.space}


def _count_again(study: Study, trial: Trial, earlier: FrozenTrial) -> None:
    """The result of an equal job: the sampler learns that it has been there."""
    for step, value in earlier.intermediate_values.items():
        trial.report(value, step)
    done = earlier.state in (TrialState.COMPLETE, TrialState.PRUNED)
    complete = earlier.state == TrialState.COMPLETE
    study.tell(trial, earlier.values if complete else None, earlier.state if done else TrialState.FAIL)


def _size(plan: Plan) -> float:
    """Number of cells that can be drawn."""
    return math.inf if any(part.interval for part in plan.space) else len(plan.cells())


def _key(cell: Cell) -> Hashable:
    return tuple(sorted(cell.items()))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.interval is None:
        return CategoricalDistribution(dimension.labels)
    low, high = cast(tuple[float, float], (dimension.interval.start, dimension.interval.end))
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)
