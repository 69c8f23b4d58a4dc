"""One run, read once from top to bottom."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
from omegaconf import DictConfig

from experiments import assembly, checkpoints, export, figures, resume
from experiments.assembly import Assemble, Built, schedule
from experiments.build import build, build_named
from experiments.callbacks import TensorBoard, TrackMetrics
from experiments.data import Splits, named_errors
from experiments.description import describe
from experiments.disk import named_disk_errors
from experiments.divergence import StopWhenDiverged
from experiments.fingerprint import fingerprint
from experiments.interruption import Interruption
from experiments.loops import History
from experiments.loops.evaluation import evaluation_of
from experiments.progress import Size, progress
from experiments.recording import recording
from experiments.resume import Origin
from experiments.run_lock import locked
from experiments.stages import Show, silent
from experiments.tracking.base import Tracker
from experiments.trained_part import TrainedPart
from experiments.uploads import CheckpointUploads, remove_stale

CHECKPOINTS = "checkpoints"


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


def run(
    cfg: DictConfig,
    output_dir: Path,
    show: Show = silent,
    *,
    extra: Mapping[str, keras.callbacks.Callback] | None = None,
    tags: Mapping[str, str] | None = None,
    assemble: Assemble = assembly.assemble,
) -> Result:
    """Trains what `cfg` composes, from the beginning or from where the run that `cfg.resume` names was stopped.

    Everything is built before the tracker opens, so an error leaves no junk run.

    show: told what begins; extra: more callbacks, by name; tags: of the run from its first moment;
    assemble: builds what the config describes.
    """
    origin = resume.origin(cfg, output_dir)
    built = assemble(origin.cfg, origin.threads, show)
    digests = [split.spec.digest for split in built.splits.named().values()]
    now = fingerprint(origin.cfg, digests, origin.threads, built.model.distribute_strategy.num_replicas_in_sync)
    origin = resume.checked(origin, now, output_dir)
    with locked(origin.output_dir):
        remove_stale(origin.output_dir)
        return _train(origin, built, {**resume.identity(origin.output_dir, now), **(tags or {})}, extra or {}, show)


def _train(
    origin: Origin,
    built: Built,
    identity: Mapping[str, str],
    extra: Mapping[str, keras.callbacks.Callback],
    show: Show,
) -> Result:
    cfg, output_dir = origin.cfg, origin.output_dir
    splits, model, part = built
    loop = build(cfg.loop)
    tracker: Tracker = build(
        cfg.logging.tracker,
        run_name=cfg.logging.run_name,
        output_dir=output_dir,
        run_id=origin.run_id,
        identity=identity,
    )
    interruption = Interruption()
    watching = {**observers(cfg, splits, tracker, output_dir), **build_named(cfg.callbacks), **extra}
    uploads = CheckpointUploads(tracker, output_dir, every_n_minutes=cfg.checkpoint.upload_every_n_minutes)
    keeper = _keeper(cfg, built, output_dir, watching, interruption, uploads)
    start = keeper.restore()
    resume.refuse_epochs(origin, start, splits.train.steps_per_epoch, lambda epochs: schedule(cfg, splits, epochs))
    show("opening the run")
    named = partial(named_disk_errors, output_dir, tracker)
    with (
        named(),
        tracker,
        uploading(tracker, output_dir),
        named(),
        recording(tracker, output_dir),
        named_errors(part.splits),
    ):
        describe(tracker, origin, splits)
        show(None)
        with progress(cfg.progress, _size(cfg, splits)) as bar, interruption.deferred():
            history = loop(*part, epochs=cfg.epochs, start=start, callbacks=[*bar, *watching.values(), keeper])
        show("testing, drawing and saving the best model")
        best = keeper.restore_best(model)
        metrics = _tested(part, history, tracker)
        _leave(cfg, model, splits, history, output_dir)
        show("delivering the run")
    at_best = {name: values[best.epoch] for name, values in history.items()}
    return Result(tracker.run_id, cfg.monitor.metric, best.value, at_best, metrics, output_dir, tracker.page)


def _keeper(
    cfg: DictConfig,
    built: Built,
    output_dir: Path,
    watching: dict[str, keras.callbacks.Callback],
    interruption: Interruption,
    saved: Callable[[str], None],
) -> checkpoints.Checkpoints:
    saving = {key: value for key, value in cfg.checkpoint.items() if key != "upload_every_n_minutes"}
    return checkpoints.Checkpoints(
        output_dir / CHECKPOINTS,
        model=built.part.model,
        whole=built.model,
        metric=cfg.monitor.metric,
        mode=cfg.monitor.mode,
        observers=watching,
        interruption=interruption,
        saved=saved,
        **saving,
    )


def observers(
    cfg: DictConfig, splits: Splits, tracker: Tracker, output_dir: Path
) -> dict[str, keras.callbacks.Callback]:
    """What watches every run, by names that no callback of a config can have."""
    return {
        "(tracking)": TrackMetrics(tracker, every_n_steps=cfg.logging.every_n_steps),
        "(tensorboard)": TensorBoard(output_dir / "tensorboard", train=splits.train, **cfg.tensorboard),
        "(divergence)": StopWhenDiverged(output_dir / CHECKPOINTS, max_loss=cfg.monitor.max_loss),
    }


def _size(cfg: DictConfig, splits: Splits) -> Size:
    train, validation = splits.train, splits.validation
    return Size(cfg.epochs, train.steps_per_epoch, validation.steps_per_epoch, train.batch_size)


def _tested(part: TrainedPart, history: History, tracker: Tracker) -> dict[str, float]:
    """Metrics of the best weights on the test split, where there is one."""
    if part.splits.test is None:
        return {}
    tested, _ = evaluation_of(part.model)(part.splits.test)
    metrics = {f"test_{name}": value for name, value in tested.items()}
    tracker.log_metrics(metrics, step=len(history["loss"]))
    return metrics


def _leave(cfg: DictConfig, model: keras.Model, splits: Splits, history: History, output_dir: Path) -> None:
    """Figures and the model of the best weights."""
    if cfg.logging.log_figures:
        predictions = checkpoints.best_predictions(output_dir / CHECKPOINTS)
        figures.draw(output_dir / "figures", history=history, predictions=predictions, validation=splits.validation)
    if cfg.logging.log_model:
        inputs, *_ = next(iter(splits.validation.epoch(0).take(1)))
        folder = output_dir / "model"
        if folder.exists():  # of a run that goes on
            shutil.rmtree(folder)
        export.save_model(model, splits.validation.spec, inputs[:4].numpy(), folder)


@contextmanager
def uploading(tracker: Tracker, output_dir: Path) -> Iterator[None]:
    """The output folder is the contract between observers: the tracker takes each folder as it is, however it ends."""
    try:
        yield
    finally:
        for folder in sorted(output_dir.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                # Checkpoints that training has rotated out, or replaced by better ones, are not kept there either.
                tracker.log_artifacts(folder, folder=folder.name, replace=folder.name == CHECKPOINTS)
