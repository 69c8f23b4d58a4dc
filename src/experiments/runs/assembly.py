"""Everything that a config describes, built before a run is opened."""

import logging
from typing import NamedTuple, Protocol

import keras
import mlflow
from omegaconf import DictConfig

from experiments.cli.status import Status
from experiments.config.build import build, build_each, caches_features
from experiments.data import Splits
from experiments.data.cache.features import features_of
from experiments.errors import ConfigError, ExperimentError, ModelError, near
from experiments.loops.evaluation import build_variables
from experiments.models.frozen import split_frozen
from experiments.runs import runtime, saved_model
from experiments.schedules import LearningRate

logger = logging.getLogger(__name__)


class TrainingTarget(NamedTuple):
    """model: the full model or its head, which shares the layers; splits: what it is fed."""

    model: keras.Model
    splits: Splits


def training_target(model: keras.Model, splits: Splits, *, cache_features: bool | str) -> TrainingTarget:
    """The head where features can be kept.

    cache_features: False never; "auto" where nothing changes by it, said in one line where not; True or an error, and
    also where features differ in their last bits from batch to batch.
    Raises ConfigError with the reason where True cannot be.
    """
    if cache_features is False:
        return TrainingTarget(model, splits)
    try:
        return _head_on_features(model, splits, exactly=cache_features == "auto")
    except ExperimentError as reason:
        if cache_features is True:
            raise ConfigError(
                f"model.cache_features=true cannot be: {reason}. Set model.cache_features=auto or false."
            ) from reason
        logger.info("Features are computed in every epoch (model.cache_features=auto): %s.", reason)
        return TrainingTarget(model, splits)


def _head_on_features(model: keras.Model, splits: Splits, *, exactly: bool) -> TrainingTarget:
    policy = keras.config.dtype_policy().name
    if policy != "float32":
        raise ModelError(f"under runtime.precision={policy} features would be kept in another precision")
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ModelError("under runtime.strategy=mirrored each replica has frozen layers of its own")
    frozen = split_frozen(model, splits.train.spec.input_dtype)
    if exactly and not frozen.exact:
        raise ModelError(f"those of {model.name} differ in their last bits from batch to batch")
    return TrainingTarget(frozen.head, features_of(splits, frozen.features, frozen.shape, frozen.identity))


class Built(NamedTuple):
    """target: what the loop trains, of `model` on `splits`."""

    splits: Splits
    model: keras.Model
    target: TrainingTarget


class Assemble(Protocol):
    """What builds a run: `assemble`, or another that gives as much."""

    def __call__(self, cfg: DictConfig, threads: int | None, status: Status) -> Built: ...


def assemble(cfg: DictConfig, threads: int | None, status: Status) -> Built:
    """threads: compute threads of one operation; None: as TensorFlow chooses.

    Raises ConfigError where parts do not fit each other.
    """
    strategy = runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": threads})
    if cfg.logging.tracking_uri is not None:
        # model.weights=runs:/ID is looked up there.
        mlflow.set_tracking_uri(cfg.logging.tracking_uri)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    spec = splits.train.spec
    status.update("building the model")
    with strategy.scope():
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        target = training_target(model, splits, cache_features=caches_features(cfg.model))
        compile_model(cfg, *target)
    if cfg.logging.log_model:
        saved_model.check_savable(model)
    names = build_variables(target.model, target.splits.validation)
    known = [*names, *(f"val_{name}" for name in names)]
    if cfg.monitor.metric not in known:
        raise ConfigError(
            f"monitor.metric={cfg.monitor.metric} is not a metric of this run. {near(cfg.monitor.metric, known)}"
        )
    return Built(splits, model, target)


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
