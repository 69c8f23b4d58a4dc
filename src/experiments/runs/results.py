"""Saves the results of a run: test metrics, figures, the model, and the output folder in the tracking store."""

import logging
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from omegaconf import DictConfig
from PIL import Image

from experiments.checkpoints.best import best_predictions
from experiments.checkpoints.layout import CHECKPOINTS
from experiments.data import Splits
from experiments.loops import History
from experiments.loops.evaluation import evaluation_of
from experiments.models.network_cache import digest
from experiments.models.outputs import meaning_of_outputs
from experiments.runs import figures, recording, saved_model
from experiments.runs.assembly import TrainingTarget
from experiments.runs.disk_errors import disk_errno
from experiments.tracking.base import Tracker, Upload

MODEL = "model"
logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """Results of a run.

    `objective` is the best value of the metric `monitored`, and `at_best` contains all metrics of that epoch. `metrics`
    are those of the best weights on the test split; empty if there is no test split.
    """

    run_id: str | None
    monitored: str
    objective: float
    at_best: dict[str, float]
    metrics: dict[str, float]
    output_dir: Path
    page: str | None
    """Path of the run in the MLflow UI, relative to the UI's address; None without a UI."""
    model_uri: str | None = None
    """Address of the saved model in the tracking store; None if the store has no logged models, or not this one yet."""


def evaluate_test_split(target: TrainingTarget, history: History, tracker: Tracker) -> dict[str, float]:
    """Evaluates the best weights on the test split and logs the metrics. Returns {} if there is no test split."""
    if target.splits.test is None:
        return {}
    tested, _ = evaluation_of(target.model)(target.splits.test)
    metrics = {f"test_{name}": value for name, value in tested.items()}
    tracker.log_metrics(metrics, step=len(history["loss"]))
    return metrics


def save_results(
    cfg: DictConfig, model: keras.Model, splits: Splits, history: History, best: int, output_dir: Path, tracker: Tracker
) -> None:
    """Saves the model of epoch `best` and draws the figures, if enabled. The tag `left_out` names what fails."""
    failed: dict[str, str] = {}
    attempt, validation = partial(_attempt, failed), splits.validation
    folder = output_dir / MODEL
    # A resumed run that has saved a model replaces it, so that the model and the metrics of a run belong together.
    if cfg.logging.log_model or has_model(output_dir):
        with attempt("model"):
            shutil.rmtree(folder, ignore_errors=True)
            saved_model.save_model(model, validation.spec, folder, from_logits=bool(cfg.loss.get("from_logits")))
        if failed:  # an incomplete folder would be uploaded
            shutil.rmtree(folder, ignore_errors=True)
    if cfg.logging.log_figures:
        with attempt("figures"):
            predictions, spec = best_predictions(output_dir / CHECKPOINTS), validation.spec
            if meaning_of_outputs(model, spec.input_shape, spec.input_dtype) == "logits":
                predictions = predictions._replace(outputs=figures.probabilities(predictions.outputs))
            folder = output_dir / "figures"
            most_wrong = folder / "most_wrong.png"
            most_wrong.unlink(missing_ok=True)  # of a resumed run that was finished before
            figures.draw(folder, attempt, history=history, best=best, predictions=predictions, validation=validation)
            if most_wrong.is_file():
                recording.save_image("most wrong", np.asarray(Image.open(most_wrong)), best + 1)
    if failed:
        left_out = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        logger.warning("The run is complete, but without %s.", left_out)
        tracker.set_tags({"left_out": left_out})


@contextmanager
def _attempt(failed: dict[str, str], name: str) -> Iterator[None]:
    """Adds the reason to `failed` if the block raises, unless the disk is full or read-only."""
    try:
        yield
    except Exception as error:
        if disk_errno(error) is not None:
            raise
        failed[name] = textwrap.shorten(f"{error or type(error).__name__}", 500).rstrip(".")


def facts_of(model: keras.Model, history: History, metric: str, step: int, tested: dict[str, float]) -> dict[str, Any]:
    """Returns `Upload.model`: the hash of the best weights, reached in epoch `step` (from 1), and their metrics."""
    values = {name: each[step - 1] for name, each in history.items()}
    values |= {f"best_{metric}": values[metric], "best_epoch": float(step)}
    metrics = {name: (value, step, "validation" if "val_" in name else "train") for name, value in values.items()}
    metrics |= {name: (value, len(history["loss"]), "test") for name, value in tested.items()}
    return {"step": step, "digest": digest(model.weights), "metrics": metrics}


def has_model(output_dir: Path) -> bool:
    return (output_dir / MODEL / "MLmodel").is_file()


def upload_folders(tracker: Tracker, output_dir: Path) -> None:
    """Uploads every visible folder of the output folder, so a callback logs artifacts by writing a folder there."""
    uploaded = (recording.IMAGES, MODEL if has_model(output_dir) else "")  # when they were written
    for folder in sorted(output_dir.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in uploaded:
            # `replace` removes checkpoints that training has rotated out or improved.
            tracker.log_artifacts(Upload(folder, folder.name, replace=folder.name == CHECKPOINTS))
