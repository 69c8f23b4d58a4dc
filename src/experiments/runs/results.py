"""What a run leaves at its end: test metrics, figures, the saved model and its output folder in the store."""

import shutil
from pathlib import Path
from typing import NamedTuple

import keras
from omegaconf import DictConfig

from experiments.checkpoints.best import best_predictions
from experiments.checkpoints.layout import CHECKPOINTS
from experiments.data import Splits
from experiments.loops import History
from experiments.loops.evaluation import evaluation_of
from experiments.runs import figures, saved_model
from experiments.runs.assembly import TrainingTarget
from experiments.tracking.base import Tracker, Upload


class Result(NamedTuple):
    """objective: the best monitored value; at_best: all metrics of that epoch.

    metrics: of the best weights on the test split, where there is one.
    """

    run_id: str | None
    monitored: str
    objective: float
    at_best: dict[str, float]
    metrics: dict[str, float]
    output_dir: Path
    page: str | None
    """Where the MLflow page shows the run, below the page's address."""


def evaluate_test_split(target: TrainingTarget, history: History, tracker: Tracker) -> dict[str, float]:
    """Metrics of the best weights on the test split, where there is one."""
    if target.splits.test is None:
        return {}
    tested, _ = evaluation_of(target.model)(target.splits.test)
    metrics = {f"test_{name}": value for name, value in tested.items()}
    tracker.log_metrics(metrics, step=len(history["loss"]))
    return metrics


def save_results(cfg: DictConfig, model: keras.Model, splits: Splits, history: History, output_dir: Path) -> None:
    """Figures and the model of the best weights."""
    if cfg.logging.log_figures:
        predictions = best_predictions(output_dir / CHECKPOINTS)
        figures.draw(output_dir / "figures", history=history, predictions=predictions, validation=splits.validation)
    if cfg.logging.log_model:
        inputs, *_ = next(iter(splits.validation.epoch(0).take(1)))
        folder = output_dir / "model"
        if folder.exists():  # of a run that goes on
            shutil.rmtree(folder)
        saved_model.save_model(model, splits.validation.spec, inputs[:4].numpy(), folder)


def upload_folders(tracker: Tracker, output_dir: Path) -> None:
    """Uploads every folder in the output folder, which is the contract between callbacks and tracker."""
    for folder in sorted(output_dir.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            # Checkpoints that training has rotated out, or replaced by better ones, are not kept there either.
            tracker.log_artifacts(Upload(folder, folder.name, replace=folder.name == CHECKPOINTS))
