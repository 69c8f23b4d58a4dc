"""Builds the model and the data of a config before the run is opened."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import keras
import mlflow
from omegaconf import DictConfig

from experiments.cli.status import Status
from experiments.config.build import CACHE_FEATURES, build, build_each
from experiments.data import DataSpec, Splits
from experiments.data.cache.features import features_of
from experiments.errors import ConfigError, ExperimentError, ModelError, near
from experiments.loops.evaluation import build_variables
from experiments.models.frozen import split_frozen
from experiments.models.layers import PreprocessForArchitecture
from experiments.models.outputs import check_outputs
from experiments.runs import runtime
from experiments.schedules import LearningRate

logger = logging.getLogger(__name__)


class TrainingTarget(NamedTuple):
    """Model to train and its splits: the full model, or its head, which shares its layers, on cached features."""

    model: keras.Model
    splits: Splits


def training_target(model: keras.Model, splits: Splits, *, cache_features: bool | str) -> TrainingTarget:
    """Returns the head with cached features if the features can be cached, else the full model.

    `cache_features` False: never caches. "auto": caches if the trained weights stay bit for bit identical, else logs
    the reason. True: caches even if features differ in their last bits between batches; raises ConfigError with the
    reason if they cannot be cached.
    """
    if cache_features is False:
        return TrainingTarget(model, splits)
    try:
        return _head_on_features(model, splits, exactly=cache_features == "auto")
    except ExperimentError as reason:
        if cache_features is True:
            raise ConfigError(
                f"model.cache_features=true is not possible: {reason}. Set model.cache_features=auto or false."
            ) from reason
        logger.info("Features are computed in every epoch (model.cache_features=auto): %s.", reason)
        return TrainingTarget(model, splits)


def _head_on_features(model: keras.Model, splits: Splits, *, exactly: bool) -> TrainingTarget:
    """Raises ModelError with the reason if features cannot be cached, or if `exactly` and they are not bit-exact."""
    policy = keras.config.dtype_policy().name
    if policy != "float32":
        raise ModelError(f"under runtime.precision={policy} features would be stored in another precision")
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ModelError("under runtime.strategy=mirrored each replica has its own frozen layers")
    frozen = split_frozen(model, splits.train.spec.input_dtype)
    if exactly and not frozen.exact:
        raise ModelError(f"the features of {model.name} differ in their last bits from batch to batch")
    return TrainingTarget(frozen.head, features_of(splits, frozen.features, frozen.shape, frozen.identity))


class Built(NamedTuple):
    """Splits and compiled model of a run, and the part of them that the loop trains."""

    splits: Splits
    model: keras.Model
    target: TrainingTarget


Assemble = Callable[[DictConfig, int | None, Status], Built]
"""A function that builds a run, such as `assemble`."""


def assemble(cfg: DictConfig, threads: int | None, status: Status) -> Built:
    """Builds the splits and the compiled model.

    `threads` is the number of compute threads per operation; None uses TensorFlow's default. Raises ConfigError if
    parts of the config do not fit together.
    """
    strategy = runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": threads})
    if cfg.logging.tracking_uri is not None:
        # model.weights=runs:/ID is loaded from this store.
        mlflow.set_tracking_uri(cfg.logging.tracking_uri)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    spec = splits.train.spec
    labels = splits.train.epoch(0).element_spec[1].dtype
    if not labels.is_integer:
        raise ConfigError(
            f"The labels of {spec.source} are {labels.name}: expected integers. Number the classes from 0."
        )
    status.update("building the model")
    with strategy.scope():
        model = build_model(cfg.model, spec)
        target = training_target(model, splits, cache_features=cfg.model.get(CACHE_FEATURES, False))
        compile_model(cfg, *target)
    names = build_variables(target.model, target.splits.validation)
    known = [*names, *(f"val_{name}" for name in names)]
    if cfg.monitor.metric not in known:
        raise ConfigError(
            f"monitor.metric={cfg.monitor.metric} is not a metric of this run. {near(cfg.monitor.metric, known)}"
        )
    return Built(splits, model, target)


def build_model(node: DictConfig, spec: DataSpec) -> keras.Model:
    """Builds the model for inputs of `spec`; earlier versions did not examine the range of floats."""
    model: keras.Model = build(node, input_shape=spec.input_shape, num_classes=spec.num_classes)
    for layer in model.layers if spec.split_rules > 1 else ():
        if isinstance(layer, PreprocessForArchitecture):
            layer.scale = 255.0 / spec.white(layer.architecture, channels=(1, 3))
    return model


def compile_model(cfg: DictConfig, model: keras.Model, splits: Splits) -> None:
    loss, metrics = build(cfg.loss), [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
    spec = splits.train.spec
    check_outputs([loss, *metrics], model, spec.input_shape, spec.input_dtype, spec.num_classes)
    model.compile(
        optimizer=build(cfg.optimizer, learning_rate=schedule(cfg, splits, cfg.epochs)),
        loss=loss,
        metrics=metrics,
        steps_per_execution=cfg.loop.steps_per_execution,
        jit_compile=cfg.loop.jit_compile,
    )


def schedule(cfg: DictConfig, splits: Splits, epochs: int) -> LearningRate:
    """Returns the learning rate, or its schedule, for a run of `epochs` epochs."""
    total_steps = epochs * splits.train.steps_per_epoch
    rate: LearningRate = build(cfg.schedule, learning_rate=cfg.optimizer.learning_rate, total_steps=total_steps)
    return rate
