"""One run, read once from top to bottom."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import keras
from omegaconf import DictConfig

from experiments.checkpoints.callback import Checkpoints
from experiments.checkpoints.uploads import CheckpointUploads, remove_stale
from experiments.cli.signals import Interruption
from experiments.cli.status import SILENT, Status
from experiments.config.build import build, build_named
from experiments.data import Splits, named_errors
from experiments.records.environment import provenance, write_files
from experiments.records.fingerprint import fingerprint
from experiments.records.params import flatten
from experiments.records.snapshot import typed_overrides, write_snapshot
from experiments.runs import assembly, resume, resume_checks
from experiments.runs.assembly import Assemble, Built, schedule
from experiments.runs.callbacks import builtin_callbacks
from experiments.runs.disk_errors import named_disk_errors
from experiments.runs.progress import Size, progress
from experiments.runs.recording import recording
from experiments.runs.results import CHECKPOINTS, Result, save_results, test_metrics, uploading
from experiments.runs.resume import ResumePoint
from experiments.tracking.base import Tracker
from experiments.tracking.liveness import locked


def run(
    cfg: DictConfig,
    output_dir: Path,
    status: Status = SILENT,
    *,
    extra: Mapping[str, keras.callbacks.Callback] | None = None,
    tags: Mapping[str, str] | None = None,
    assemble: Assemble = assembly.assemble,
) -> Result:
    """Trains what `cfg` composes, from the beginning or from where the run that `cfg.resume` names was stopped.

    Everything is built before the tracker opens, so an error leaves no junk run.

    status: told what begins; extra: more callbacks, by name; tags: of the run from its first moment;
    assemble: builds what the config describes.
    """
    origin = resume.find_resume_point(cfg, output_dir)
    built = assemble(origin.cfg, origin.threads, status)
    digests = [split.spec.digest for split in built.splits.named().values()]
    now = fingerprint(origin.cfg, digests, origin.threads, built.model.distribute_strategy.num_replicas_in_sync)
    origin = resume_checks.checked(origin, now, output_dir)
    with locked(origin.output_dir):
        remove_stale(origin.output_dir)
        return _train(origin, built, {**resume.identity(origin.output_dir, now), **(tags or {})}, extra or {}, status)


def _train(
    origin: ResumePoint,
    built: Built,
    identity: Mapping[str, str],
    extra: Mapping[str, keras.callbacks.Callback],
    status: Status,
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
    watching = {**builtin_callbacks(cfg, splits, tracker, output_dir), **build_named(cfg.callbacks), **extra}
    uploads = CheckpointUploads(tracker, output_dir, every_n_minutes=cfg.checkpoint.upload_every_n_minutes)
    keeper = _checkpoints(cfg, built, output_dir, watching, interruption, uploads)
    start = keeper.restore()
    resume_checks.refuse_epochs(
        origin, start, splits.train.steps_per_epoch, lambda epochs: schedule(cfg, splits, epochs)
    )
    status.update("opening the run")
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
        status.stop()
        with progress(cfg.progress, _size(cfg, splits)) as bar, interruption.deferred():
            history = loop(*part, epochs=cfg.epochs, start=start, callbacks=[*bar, *watching.values(), keeper])
        status.update("testing, drawing and saving the best model")
        best = keeper.restore_best(model)
        metrics = test_metrics(part, history, tracker)
        save_results(cfg, model, splits, history, output_dir)
        status.update("delivering the run")
    at_best = {name: values[best.epoch] for name, values in history.items()}
    return Result(tracker.run_id, cfg.monitor.metric, best.value, at_best, metrics, output_dir, tracker.page)


def _checkpoints(
    cfg: DictConfig,
    built: Built,
    output_dir: Path,
    watching: dict[str, keras.callbacks.Callback],
    interruption: Interruption,
    saved: Callable[[str], None],
) -> Checkpoints:
    saving = {key: value for key, value in cfg.checkpoint.items() if key != "upload_every_n_minutes"}
    return Checkpoints(
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


def _size(cfg: DictConfig, splits: Splits) -> Size:
    train, validation = splits.train, splits.validation
    return Size(cfg.epochs, train.steps_per_epoch, validation.steps_per_epoch, train.batch_size)


def describe(tracker: Tracker, origin: ResumePoint, splits: Splits) -> None:
    """Params, tags and data sets to the tracker, and `config/` in the output folder.

    Of a run that goes on, only what is different now: it keeps what it began with.
    """
    tracker.set_tags(origin.changed)
    if origin.recorded is not None:
        return
    params = flatten(origin.cfg)
    # What the tracker is built from repeats its neighbours.
    tracker.log_params({name: value for name, value in params.items() if not name.startswith("logging.tracker.")})
    facts, folder = provenance(), origin.output_dir / "config"
    tracker.set_tags(facts.tags())
    write_files(facts, folder)
    for context, split in splits.named().items():
        tracker.log_dataset(split.spec, context=context)
    write_snapshot(folder, origin.cfg, splits.train.spec, typed_overrides())
    # Another machine may go on with the run, and needs to know how it began.
    tracker.log_artifacts(folder, folder=folder.name)
