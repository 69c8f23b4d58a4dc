"""Executes one run from start to end. The stages are called here, in order."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import keras
from omegaconf import DictConfig

from experiments.checkpoints.callback import CheckpointOptions, Checkpoints
from experiments.checkpoints.layout import CHECKPOINTS
from experiments.checkpoints.uploads import CheckpointUploads, remove_stale
from experiments.cli.signals import Interruption
from experiments.cli.status import SILENT, Status
from experiments.config.build import build, build_named
from experiments.data import Splits
from experiments.data.base import split_rules, using_split_rules
from experiments.data.read_errors import named_errors
from experiments.errors import ConfigError, TrackingError, reading
from experiments.files import only_existing_files
from experiments.models.run_weights import COMPLETE_ID, PREFIXES, run_of
from experiments.records.description import at_end, at_start, params, run_name
from experiments.records.environment import provenance, write_files
from experiments.records.fingerprint import fingerprint
from experiments.records.named_run import RANKING
from experiments.records.params import flatten
from experiments.records.snapshot import read_snapshot, write_snapshot
from experiments.records.trust import typed_overrides
from experiments.runs.assembly import Assemble, Built, assemble, schedule
from experiments.runs.callbacks import builtin_callbacks
from experiments.runs.disk_errors import explained_disk_errors
from experiments.runs.progress import Size, progress
from experiments.runs.recording import recording
from experiments.runs.results import (
    MODEL,
    Result,
    evaluate_test_split,
    facts_of,
    has_model,
    save_results,
    upload_folders,
)
from experiments.runs.resume import LAST, ResumePoint, find_resume_point
from experiments.runs.resume_checks import check_resume, refuse_epochs
from experiments.tracking.base import Tracker, Upload
from experiments.tracking.liveness import run_lock, signs_of_life
from experiments.tracking.notes import NOTE

READ_HERE = ("every_n_steps", "log_model", "log_figures")
"""Keys of `logging` that configure the run itself. The tracker is built from the other keys."""


def run(
    cfg: DictConfig,
    output_dir: Path,
    status: Status = SILENT,
    *,
    extra: Mapping[str, keras.callbacks.Callback] | None = None,
    tags: Mapping[str, str] | None = None,
    assemble: Assemble = assemble,
    handle_signals: bool = True,
    remark: Callable[[], str] = str,
) -> Result:
    """Trains the model that `cfg` describes and returns the results. Continues a stopped run if `cfg.resume` is set.

    Model and data are built before the run is opened in the tracking store, so an error in them leaves no run behind.

    `extra` are additional callbacks by name. `tags` are set on the run when it is created. `assemble` builds the model
    and the data from the config. Without `handle_signals`, an interrupt raises KeyboardInterrupt at once. `remark`
    returns a sentence for the end of the description.
    """
    _resolve_alias(cfg)
    point = find_resume_point(cfg, output_dir)
    _resolve_alias(point.cfg)
    rules = split_rules()
    if point.recorded is not None:
        rules = read_snapshot(point.output_dir / "config", f"run {point.run_id}")[1].split_rules
    typed = typed_overrides()
    # The path of the data may come from the record of the run. A sweep sets `resume` of its jobs itself.
    by_id = cfg.resume != LAST and f"resume={cfg.resume}" in typed
    for version in (rules, split_rules()):
        with only_existing_files(by_id and "data.path=" not in " ".join(typed)), using_split_rules(version):
            built = assemble(point.cfg, point.threads, status)
        digests = [split.spec.digest for split in built.splits.named().values()]
        current = fingerprint(point.cfg, digests, point.threads, built.model.distribute_strategy.num_replicas_in_sync)
        point = check_resume(point, current, output_dir)
        # The data of a stopped run may have changed. The new run that starts then uses the newest rules.
        if point.recorded is not None or version == split_rules():
            break
    with run_lock(point.output_dir):
        # Only the owner of the lock may remove stale files: they look like those of a running process.
        remove_stale(point.output_dir)
        identity = {**current.tags(), **signs_of_life(point.output_dir), **(tags or {})}
        fixed = {"output_dir": point.output_dir, "run_id": point.run_id, "identity": identity}
        tracker = build(point.cfg.logging, READ_HERE, run_name=run_name(point.cfg), **fixed)
        return _train(point, built, tracker, extra or {}, status, Interruption(enabled=handle_signals), remark)


def _resolve_alias(cfg: DictConfig) -> None:
    """Replaces other names of runs and registered models in `model.weights` by a run id, which cannot change."""
    source, store = str(cfg.model.get("weights")), cfg.logging
    if source.startswith(PREFIXES) and not COMPLETE_ID.fullmatch(source):
        if cfg.resume == LAST:
            raise ConfigError(
                f"model.weights={source} may be another run than before, which resume=last would not find: expected "
                "runs:/ID. Set model.weights=runs:/ID, or resume=ID."
            )
        cfg.model.weights = f"runs:/{run_of(source, store.tracking_uri, store.experiment_name)}"


def _train(
    point: ResumePoint,
    built: Built,
    tracker: Tracker,
    extra: Mapping[str, keras.callbacks.Callback],
    status: Status,
    interruption: Interruption,
    remark: Callable[[], str],
) -> Result:
    """Restores the latest valid checkpoint, trains to the last epoch, then evaluates and saves the best weights."""
    cfg, output_dir, splits = point.cfg, point.output_dir, built.splits
    model, target = built.model, built.target
    loop = build(cfg.loop)

    builtin = builtin_callbacks(cfg, splits, tracker, output_dir, began=point.began)
    callbacks = {**builtin, **build_named(cfg.callbacks), **extra}
    options = CheckpointOptions(metric=cfg.monitor.metric, mode=cfg.monitor.mode, **cfg.checkpoint)
    checkpoints = Checkpoints(
        output_dir / CHECKPOINTS,
        options,
        model=target.model,
        full_model=model,
        observers=callbacks,
        interruption=interruption,
        committing=tracker.sync,
        saved=CheckpointUploads(tracker, output_dir, every_n_minutes=options.upload_every_n_minutes),
    )
    if point.recorded is not None and not checkpoints.directory.is_dir():
        raise TrackingError(
            f"'{checkpoints.directory}' does not exist: expected the checkpoints of run {point.run_id}. Restore the "
            "folder, create an empty one to train again from the beginning, or start a new run with resume=null."
        )
    with reading(f"'{checkpoints.directory}' of the run"):
        start = checkpoints.restore()
    steps = splits.train.steps_per_epoch
    # Checked here, because only the restored checkpoint contains the number of completed steps.
    refuse_epochs(point, start, steps, lambda epochs: schedule(cfg, splits, epochs))

    status.update("opening the run")
    with _open_run(tracker, output_dir, target.splits):
        checkpoints.directory.mkdir(exist_ok=True)
        _record_start(tracker, point, built)
        status.stop()
        size = Size(cfg.epochs, steps, splits.validation.steps_per_epoch, splits.train.batch_size)
        with progress(cfg.progress, size) as bar, interruption.deferred():
            # `checkpoints` is last, so that it saves the state that the other callbacks have reached.
            history = loop(*target, epochs=cfg.epochs, start=start, callbacks=[*bar, *callbacks.values(), checkpoints])
        status.update("testing, drawing and saving the best model")
        best = checkpoints.restore_best(model)
        metrics = evaluate_test_split(target, history, tracker)
        save_results(cfg, model, splits, history, best.epoch, output_dir, tracker)
        if has_model(output_dir):
            facts = facts_of(model, history, cfg.monitor.metric, best.epoch + 1, metrics)
            tracker.log_artifacts(Upload(output_dir / MODEL, MODEL, replace=True, model=facts))
        status.update("delivering the run")
        results = at_end(cfg.monitor.metric, *best, len(history["loss"]), metrics, time.monotonic() - point.began)
        tracker.conclusion = f"{results} {remark()}".strip()
    at_best = {name: values[best.epoch] for name, values in history.items()}
    objective = (cfg.monitor.metric, best.value)
    return Result(tracker.run_id, *objective, at_best, metrics, output_dir, tracker.page, tracker.model_uri)


@contextmanager
def _open_run(tracker: Tracker, output_dir: Path, splits: Splits) -> Iterator[None]:
    """Opens the run in the tracking store. When the block ends or raises, uploads the output folder and closes the run.

    Disk errors are explained inside the tracker's context, so that the tracker records the explanation, and again
    around it, because the tracker writes files too.
    """
    with explained_disk_errors(output_dir, tracker), tracker:
        try:
            with explained_disk_errors(output_dir, tracker), recording(tracker, output_dir), named_errors(splits):
                yield
        finally:
            upload_folders(tracker, output_dir)


def _record_start(tracker: Tracker, point: ResumePoint, built: Built) -> None:
    """Logs params, tags, the description and data sets, and writes `config/` into the output folder.

    A resumed run keeps its first record. Only tags for the values that differ now are added.
    """
    before = {} if point.run is None else point.run.data.tags
    tracker.set_tags({**point.changed, **dict.fromkeys({"left_out", "error", "stopped"} & before.keys(), "none")})
    if point.recorded is not None:
        return
    cfg, splits = point.cfg, built.splits.named()
    if str(cfg.model.get("weights")).startswith("runs:/"):
        tracker.set_tags({"weights_run_id": run_of(cfg.model.weights)})
    trainable = sum(math.prod(weight.shape) for weight in built.model.trainable_weights)
    counts = {"parameters": str(built.model.count_params()), "trainable_parameters": str(trainable)}
    tracker.log_params(params(cfg) | counts)
    specs = {name: split.spec for name, split in splits.items()}
    note = at_start(specs, cfg.runtime.threads, cfg.model.get("weights"))
    path = flatten(cfg.data).get("path")
    tracker.set_tags({NOTE: note} | ({} if path is None else {"data_path": path}))
    environment, folder = provenance(), point.output_dir / "config"
    monitored = (cfg.monitor.metric, cfg.monitor.mode, splits["validation"].spec.digest)
    tracker.set_tags(environment.tags() | dict(zip(RANKING, monitored, strict=True)))
    write_files(environment, folder)
    for context, split in splits.items():
        tracker.log_dataset(split.spec, context=context)
    write_snapshot(folder, cfg, splits["train"].spec, typed_overrides())
    # Uploaded now and not at the end, because another machine needs these files to resume a killed run.
    tracker.log_artifacts(Upload(folder, folder.name))
