"""Pictures of a sweep: how it went, which values were good, and which parameters mattered."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from optuna import Study, visualization

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it advises on labels that are numbers
logger = logging.getLogger(__name__)


def draw_figures(study: Study, output: Path, objective: str) -> None:
    """Of the first objective; without those that so few jobs, or such equal ones, have no figure of."""
    drawn: dict[str, Callable[..., Any]] = {
        "history": visualization.matplotlib.plot_optimization_history,
        "parallel_coordinates": visualization.matplotlib.plot_parallel_coordinate,
        "slice": visualization.matplotlib.plot_slice,
        "importance": visualization.matplotlib.plot_param_importances,
    }
    for name, draw in drawn.items():
        try:
            with warnings.catch_warnings():
                # Of few jobs, or of equal values: the figure shows as much.
                warnings.simplefilter("ignore")
                draw(study, target=lambda trial: trial.values[0], target_name=objective)
        except (ValueError, RuntimeError) as reason:
            logger.info("No figure of %s: %s", name, reason)
            continue
        pyplot.gcf().savefig(output / f"{name}.png", bbox_inches="tight")
        pyplot.close("all")
