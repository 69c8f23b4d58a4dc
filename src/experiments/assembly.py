"""Everything that a config describes, built before a run is opened."""

from typing import NamedTuple, Protocol

import keras
import mlflow
from omegaconf import DictConfig

from experiments import export, runtime
from experiments.build import build, build_each, caches_features
from experiments.data import Splits
from experiments.errors import ConfigError, near
from experiments.loops.evaluation import build_variables
from experiments.schedules import LearningRate
from experiments.stages import Show
from experiments.trained_part import TrainedPart, trained_part


class Built(NamedTuple):
    """part: what the loop trains, of `model` on `splits`."""

    splits: Splits
    model: keras.Model
    part: TrainedPart


class Assemble(Protocol):
    """What builds a run: `assemble`, or another that gives as much."""

    def __call__(self, cfg: DictConfig, threads: int | None, show: Show) -> Built: ...


def assemble(cfg: DictConfig, threads: int | None, show: Show) -> Built:
    """threads: compute threads of one operation; None: as TensorFlow chooses.

    Raises ConfigError where parts do not fit each other.
    """
    strategy = runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": threads})
    if cfg.logging.tracking_uri is not None:
        # model.weights=runs:/ID is looked up there.
        mlflow.set_tracking_uri(cfg.logging.tracking_uri)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    spec = splits.train.spec
    show("building the model")
    with strategy.scope():
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        part = trained_part(model, splits, cache_features=caches_features(cfg.model))
        compile_model(cfg, *part)
    if cfg.logging.log_model:
        export.check_savable(model)
    _check_monitor(cfg.monitor.metric, build_variables(part.model, part.splits.validation))
    return Built(splits, model, part)


def compile_model(cfg: DictConfig, model: keras.Model, splits: Splits) -> None:
    model.compile(
        optimizer=build(cfg.optimizer, learning_rate=schedule(cfg, splits, cfg.epochs)),
        loss=build(cfg.loss),
        metrics=[build(node, name=name) for name, node in cfg.metrics.items() if node is not None],
        steps_per_execution=cfg.loop.steps_per_execution,
        jit_compile=cfg.loop.jit_compile,
    )


def schedule(cfg: DictConfig, splits: Splits, epochs: int) -> LearningRate:
    """The learning rate of each step of a run of so many epochs."""
    total_steps = epochs * splits.train.steps_per_epoch
    rate: LearningRate = build(cfg.schedule, learning_rate=cfg.optimizer.learning_rate, total_steps=total_steps)
    return rate


def _check_monitor(metric: str, names: list[str]) -> None:
    known = [*names, *(f"val_{name}" for name in names)]
    if metric not in known:
        raise ConfigError(f"monitor.metric={metric} is not a metric of this run. {near(metric, known)}")
