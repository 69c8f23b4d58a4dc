"""Restores the model of a finished run from a checkpoint and evaluates it."""

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import keras
from omegaconf import DictConfig, OmegaConf

from experiments.checkpoints.store import find
from experiments.checkpoints.training_state import restore_weights
from experiments.cli.status import Status
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.data import DataSpec, Split, Splits
from experiments.data.base import using_split_rules
from experiments.data.preparation import other_data
from experiments.errors import ConfigError, DataError, reading
from experiments.files import only_existing_files
from experiments.loops.evaluation import Evaluation
from experiments.records.fingerprint import joint_digest, recorded
from experiments.records.finished_run import finished_run
from experiments.runs import runtime
from experiments.runs.assembly import build_model
from experiments.tracking.mlflow_store import existing_run, existing_store

SPLITTING = ("validation_fraction", "test_fraction", "limit")
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
        metrics = [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
        model.compile(loss=build(cfg.loss), metrics=metrics, jit_compile=False)
    return RestoredRun(found.run_id, model, cfg, spec)


def _build_model(cfg: DictConfig, spec: DataSpec) -> keras.Model:
    # Threads and devices of the training do not matter here, and this machine may not have them.
    runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": None, "device": "auto", "strategy": "none"})
    if "weights" in cfg.model:
        # The checkpoint contains the weights. The initial ones may no longer be available.
        cfg.model.weights = None
    model = build_model(cfg.model, spec)
    model(keras.ops.zeros((1, *spec.input_shape), spec.input_dtype))
    return model


def evaluate(command: DictConfig, status: Status) -> dict[str, Any]:
    """Returns the row that `evaluate` prints: run, checkpoint, split, its number of examples, and metrics."""
    status.update("reading the run")
    run = restored_run(command)
    status.stop()
    own = command.data is None
    with only_existing_files(own), reading(f"the data of run {run.run_id}") if own else nullcontext():
        split: Split | None = getattr(evaluation_splits(command, run), command.split)
        if split is None:
            raise ConfigError(
                f"split={command.split} does not exist in this data. Set split=validation or split=train."
            )
        split = other_data(split, run.spec)
        status.update("evaluating")
        metrics, _ = Evaluation(run.model)(split)
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in metrics.items()}
    chosen = {"checkpoint": command.checkpoint, "split": command.split, "examples": split.spec.num_examples}
    return {"run_id": run.run_id, **chosen, **rounded}


def evaluation_splits(command: DictConfig, run: RestoredRun) -> Splits:
    """Builds the splits of the run's data, or of other data, which is one split unless it has several."""
    own, spec = command.data is None, run.spec
    data, options = run.cfg.data if own else command.data, {"seed": run.cfg.seed, "augment": []}
    # Each example is evaluated once and with equal weight, and a disk without space for a cache is not an error.
    changes: dict[str, Any] = {"sampling": "shuffled", "class_weight": None, "cache_required": False}
    if len(spec.input_shape) == 3 and spec.input_shape[2] in (1, 3):
        changes |= {"image_size": list(spec.input_shape[:2]), "channels": spec.input_shape[2]}
        changes["antialias"] = bool(run.cfg.data.get("antialias"))
    changes |= OmegaConf.load(f"{CONF}/shared/cache.yaml") if own else {}
    data.update({key: value for key, value in changes.items() if key in data})
    # Other values would make other splits, which contain examples of the training.
    kept = {key: run.cfg.data[key] for key in SPLITTING if key in run.cfg.data and key in data and not own}
    with using_split_rules(spec.split_rules):
        same, client, limit = False, existing_store(command.logging.tracking_uri), data.get("limit")
        # The selected data may be the run's at another place. If it cannot be split, it may still be evaluated.
        with nullcontext() if own else suppress(DataError):
            splits: Splits = build(data, **options, **kept)
            found = joint_digest(*(split.spec.digest.encode() for split in splits.named().values()))
            same = found == recorded(existing_run(client, run.run_id).data.tags).get("data")
            same |= not own and Path(splits.train.spec.source).resolve() == Path(spec.source).resolve()
        if not own and (limit or not same):
            whole = {key: 1.0 for key in data if key == "validation_fraction"}
            splits = build(data, **options, **(kept | {"limit": limit} if same else whole))
    if own and not same and not command.allow_other_data:
        raise DataError(
            f"The data of run {run.run_id} has changed: expected '{splits.train.spec.source}' and its splits as in the "
            "training. Restore it, set allow_other_data=true, or select other data by data=..."
        )
    return splits
