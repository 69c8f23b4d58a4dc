"""A finished run restored: its model with the weights of a checkpoint, and that model evaluated."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from omegaconf import DictConfig

from experiments.checkpoints.store import find
from experiments.checkpoints.training_state import restore_weights
from experiments.cli.status import Status
from experiments.config.build import build
from experiments.data import DataSpec, Split, Splits
from experiments.errors import ConfigError
from experiments.loops.evaluation import Evaluation
from experiments.records.finished_run import finished_run
from experiments.runs import runtime

DIGITS = 6
"""Shown of a metric: a float32 has hardly more."""


class RestoredRun(NamedTuple):
    """model: compiled for evaluation; cfg: as resolved then, secrets masked; spec: of the training split."""

    run_id: str
    model: keras.Model
    cfg: DictConfig
    spec: DataSpec


def restored_run(command: DictConfig) -> RestoredRun:
    """The run that `command.run_id` names, with the weights of checkpoint `best`, `latest` or a number.

    Raises TrackingError if there is no such run or checkpoint.
    """
    checkpoint, logging = str(command.checkpoint), command.logging
    with finished_run(logging.tracking_uri, logging.experiment_name, command.run_id, checkpoint) as found:
        cfg, spec = found.cfg, found.spec
        model = _built(cfg, spec)
        restore_weights(model, find(found.checkpoints, checkpoint, owner=f"run {found.run_id}"))
        # Takes what the checkpoint has of an optimizer, which `compile` would read into one of its own.
        model.optimizer = tf.train.Checkpoint()
        # After restoring, as the best weights hold no optimizer, and while the files are there, as TensorFlow reads on.
        metrics = [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
        model.compile(loss=build(cfg.loss), metrics=metrics, jit_compile=False)
    return RestoredRun(found.run_id, model, cfg, spec)


def _built(cfg: DictConfig, spec: DataSpec) -> keras.Model:
    runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": None, "device": "auto", "strategy": "none"})
    if "weights" in cfg.model:
        # The checkpoint holds them; reading them again would need the file or the network they came from.
        cfg.model.weights = None
    model: keras.Model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
    model(keras.ops.zeros((1, *spec.input_shape), spec.input_dtype))
    return model


def evaluate(command: DictConfig, status: Status) -> dict[str, Any]:
    """The row that `evaluate` shows: run, checkpoint, split, and each metric of it."""
    status.update("reading the run")
    run = restored_run(command)
    status.stop()
    split = _evaluation_split(command, run)
    status.update("evaluating")
    metrics, _ = Evaluation(run.model)(split)
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in metrics.items()}
    return {"run_id": run.run_id, "checkpoint": command.checkpoint, "split": command.split, **rounded}


def _evaluation_split(command: DictConfig, run: RestoredRun) -> Split:
    """The asked split of the run's own data, or of the data that the command line names."""
    data = run.cfg.data if command.data is None else command.data
    if "image_size" in data:
        data.image_size = list(run.spec.input_shape[:2])
    # Metrics of the training split are of each example once, all alike; and reading needs no room on the disk.
    plain = {"sampling": "shuffled", "class_weight": None, "cache_required": False}
    data.update({key: value for key, value in plain.items() if key in data})
    splits: Splits = build(data, seed=run.cfg.seed, augment=[])
    split: Split | None = getattr(splits, command.split)
    if split is None:
        raise ConfigError(f"split={command.split} does not exist in this data. Set split=validation or split=train.")
    if split.spec.class_names != run.spec.class_names:
        raise ConfigError(
            f"data has the classes {', '.join(split.spec.class_names)}, but run {run.run_id} was trained on "
            f"{', '.join(run.spec.class_names)}. Expected the same ones. Set data to such a set, or another run_id."
        )
    return split
