"""Restores the model of a finished run from a checkpoint and evaluates it."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf

from experiments.checkpoints.store import find
from experiments.checkpoints.training_state import restore_weights
from experiments.cli.status import Status
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.data import DataSpec, Split, Splits
from experiments.errors import ConfigError, reading
from experiments.files import only_existing_files
from experiments.loops.evaluation import Evaluation
from experiments.records.finished_run import finished_run
from experiments.runs import runtime

DIGITS = 6
"""Significant digits of a printed metric; float32 has hardly more."""


class RestoredRun(NamedTuple):
    """A run's model, compiled for evaluation; its resolved config, secrets masked; the spec of its training split."""

    run_id: str
    model: keras.Model
    cfg: DictConfig
    spec: DataSpec


def restored_run(command: DictConfig) -> RestoredRun:
    """Restores the run `command.run_id` (None: the newest) with the weights of checkpoint `best`, `latest` or a number.

    Raises TrackingError if there is no such run or checkpoint.
    """
    with finished_run(command) as found, reading(f"config/ or checkpoints/ of run {found.run_id}"):
        cfg, spec = found.cfg, found.spec
        model = _build_model(cfg, spec)
        restore_weights(model, find(found.checkpoints, str(command.checkpoint), owner=f"run {found.run_id}"))
        # Receives the optimizer state of the checkpoint. Otherwise it is restored into the optimizer of `compile`.
        model.optimizer = tf.train.Checkpoint()
        # Compiled after restoring, because the best weights contain no optimizer, and before the files are removed,
        # because TensorFlow still reads from them.
        metrics = [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
        model.compile(loss=build(cfg.loss), metrics=metrics, jit_compile=False)
    return RestoredRun(found.run_id, model, cfg, spec)


def _build_model(cfg: DictConfig, spec: DataSpec) -> keras.Model:
    # Threads and devices of the training do not matter here, and this machine may not have them.
    runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": None, "device": "auto", "strategy": "none"})
    if "weights" in cfg.model:
        # The checkpoint contains the weights. The initial ones may no longer be available.
        cfg.model.weights = None
    model: keras.Model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
    model(keras.ops.zeros((1, *spec.input_shape), spec.input_dtype))
    return model


def evaluate(command: DictConfig, status: Status) -> dict[str, Any]:
    """Returns the row that `evaluate` prints: run, checkpoint, split and metrics."""
    status.update("reading the run")
    run = restored_run(command)
    status.stop()
    own = command.data is None
    with only_existing_files(own), reading(f"the data of run {run.run_id}") if own else nullcontext():
        split = _evaluation_split(command, run)
        status.update("evaluating")
        metrics, _ = Evaluation(run.model)(split)
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in metrics.items()}
    return {"run_id": run.run_id, "checkpoint": command.checkpoint, "split": command.split, **rounded}


def _evaluation_split(command: DictConfig, run: RestoredRun) -> Split:
    """Builds the requested split of the run's data, or of the data that the command line selects."""
    data = run.cfg.data if command.data is None else command.data
    if "image_size" in data:
        data.image_size = list(run.spec.input_shape[:2])
    # Each example is evaluated once and with equal weight, and a disk without space for a cache is not an error.
    plain = {"sampling": "shuffled", "class_weight": None, "cache_required": False}
    plain |= OmegaConf.load(f"{CONF}/shared/cache.yaml") if command.data is None else {}
    data.update({key: value for key, value in plain.items() if key in data})
    splits: Splits = build(data, seed=run.cfg.seed, augment=[])
    split: Split | None = getattr(splits, command.split)
    if split is None:
        raise ConfigError(f"split={command.split} does not exist in this data. Set split=validation or split=train.")
    if split.spec.class_names != run.spec.class_names:
        raise ConfigError(
            f"data has the classes {', '.join(split.spec.class_names)}, but run {run.run_id} was trained on "
            f"{', '.join(run.spec.class_names)}. Expected the same classes. Set data to a data set with these, or "
            "another run_id."
        )
    return split
