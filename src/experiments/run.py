"""One run, read once from top to bottom."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import keras
import mlflow
from omegaconf import DictConfig

from experiments import checkpoints, export, figures, runtime
from experiments.build import build, build_each, caches_features
from experiments.callbacks import TensorBoard, TrackMetrics
from experiments.data import Splits, named_errors
from experiments.errors import ConfigError, near
from experiments.loops import History, Position
from experiments.loops.evaluation import Evaluation, build_variables
from experiments.params import flatten
from experiments.progress import Size, progress
from experiments.provenance import provenance, write_files
from experiments.recording import recording
from experiments.snapshot import write_snapshot
from experiments.stages import Show, silent
from experiments.tracking.base import Tracker
from experiments.trained_part import TrainedPart, trained_part


class Result(NamedTuple):
    """objective: the best monitored value; metrics: of the best weights on the test split, where there is one."""

    run_id: str | None
    monitored: str
    objective: float
    metrics: dict[str, float]
    output_dir: Path
    page: str | None
    """Where the MLflow page shows the run, below the page's address."""


def run(cfg: DictConfig, output_dir: Path, show: Show = silent) -> Result:
    """Trains what `cfg` composes. Everything is built before the tracker opens, so an error leaves no junk run.

    show: told what begins.
    """
    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
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
    loop = build(cfg.loop)
    keeper = checkpoints.Checkpoints(output_dir / "checkpoints", whole=model, **cfg.monitor, **cfg.checkpoint)
    tracker: Tracker = build(cfg.logging.tracker, run_name=cfg.logging.run_name, output_dir=output_dir)
    callbacks = [*observers(cfg, splits, tracker, output_dir), *build_each(cfg.callbacks), keeper]
    show("opening the run")
    with tracker, uploading(tracker, output_dir), recording(tracker, output_dir), named_errors(part.splits):
        _describe(tracker, cfg, splits, output_dir)
        show(None)
        with progress(cfg.progress, _size(cfg, splits)) as bar:
            history = loop(*part, epochs=cfg.epochs, start=Position(), callbacks=[*bar, *callbacks])
        show("testing, drawing and saving the best model")
        best = keeper.restore_best(model)
        metrics = _tested(part, history, tracker)
        _leave(cfg, model, splits, history, output_dir)
        show("delivering the run")
    return Result(tracker.run_id, cfg.monitor.metric, best.value, metrics, output_dir, tracker.page)


def compile_model(cfg: DictConfig, model: keras.Model, splits: Splits) -> None:
    total_steps = cfg.epochs * splits.train.steps_per_epoch
    schedule = build(cfg.schedule, learning_rate=cfg.optimizer.learning_rate, total_steps=total_steps)
    model.compile(
        optimizer=build(cfg.optimizer, learning_rate=schedule),
        loss=build(cfg.loss),
        metrics=[build(node, name=name) for name, node in cfg.metrics.items() if node is not None],
        steps_per_execution=cfg.loop.steps_per_execution,
        jit_compile=cfg.loop.jit_compile,
    )


def _check_monitor(metric: str, names: list[str]) -> None:
    known = [*names, *(f"val_{name}" for name in names)]
    if metric not in known:
        raise ConfigError(f"monitor.metric={metric} is not a metric of this run. {near(metric, known)}")


def _describe(tracker: Tracker, cfg: DictConfig, splits: Splits, output_dir: Path) -> None:
    params = flatten(cfg)
    # What the tracker is built from repeats its neighbours.
    tracker.log_params({name: value for name, value in params.items() if not name.startswith("logging.tracker.")})
    facts = provenance()
    tracker.set_tags(facts.tags())
    write_files(facts, output_dir / "config")
    write_snapshot(output_dir / "config", cfg, splits.train.spec)
    for context in ("train", "validation", "test"):
        split = getattr(splits, context)
        if split is not None:
            tracker.log_dataset(split.spec, context=context)


def observers(cfg: DictConfig, splits: Splits, tracker: Tracker, output_dir: Path) -> list[keras.callbacks.Callback]:
    return [
        TrackMetrics(tracker, every_n_steps=cfg.logging.every_n_steps),
        TensorBoard(output_dir / "tensorboard", train=splits.train, **cfg.tensorboard),
    ]


def _size(cfg: DictConfig, splits: Splits) -> Size:
    train, validation = splits.train, splits.validation
    return Size(cfg.epochs, train.steps_per_epoch, validation.steps_per_epoch, train.batch_size)


def _tested(part: TrainedPart, history: History, tracker: Tracker) -> dict[str, float]:
    """Metrics of the best weights on the test split, where there is one."""
    if part.splits.test is None:
        return {}
    tested, _ = Evaluation(part.model)(part.splits.test)
    metrics = {f"test_{name}": value for name, value in tested.items()}
    tracker.log_metrics(metrics, step=len(history["loss"]))
    return metrics


def _leave(cfg: DictConfig, model: keras.Model, splits: Splits, history: History, output_dir: Path) -> None:
    """Figures and the model of the best weights."""
    predictions = checkpoints.best_predictions(output_dir / "checkpoints")
    figures.draw(output_dir / "figures", history=history, predictions=predictions, validation=splits.validation)
    if cfg.logging.log_model:
        inputs, *_ = next(iter(splits.validation.epoch(0).take(1)))
        export.save_model(model, splits.validation.spec, inputs[:4].numpy(), output_dir / "model")


@contextmanager
def uploading(tracker: Tracker, output_dir: Path) -> Iterator[None]:
    """The output folder is the contract between observers: the tracker takes each folder as it is, however it ends."""
    try:
        yield
    finally:
        for folder in sorted(output_dir.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                tracker.log_artifacts(folder, folder=folder.name)
