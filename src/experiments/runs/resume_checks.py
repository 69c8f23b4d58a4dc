"""Checks that a resumed run continues with the settings and data that it started with."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import tensorflow as tf

from experiments.errors import ConfigError, TrackingError
from experiments.loops.base import Position
from experiments.records.fingerprint import Fingerprint, values
from experiments.records.named_run import RANKING
from experiments.runs.resume import LAST, ResumePoint, unfinished_runs
from experiments.schedules import LearningRate
from experiments.tracking.liveness import is_at_work
from experiments.tracking.mlflow_store import existing_store
from experiments.tracking.uris import has_store

logger = logging.getLogger(__name__)


def _refuse_twice(point: ResumePoint, current: Fingerprint) -> None:
    """Raises TrackingError if a process works on this run, or on a newer run of the same config and data.

    Called late, because two processes that start at the same time both find a run that no process works on yet.
    """
    if not has_store(point.cfg.logging.tracking_uri):
        return
    parts = {name: getattr(current, name) for name in ("config", "code", "versions", "data")}
    client = existing_store(point.cfg.logging.tracking_uri)
    same = list(unfinished_runs(client, point.cfg, parts))
    ids = [run.info.run_id for run in same]
    newer = same[: ids.index(point.run_id) + 1] if point.run_id in ids else same
    for run in filter(partial(is_at_work, client), newer):
        tags = run.data.tags
        raise TrackingError(
            f"resume=last would repeat run {run.info.run_id}: a process on {tags.get('host')} works in "
            f"'{tags.get('output_dir')}'. Expected no other active run of this config and data. Wait for its end, or "
            "stop it; resume=null starts another run."
        )


def _link(own: Path, output_dir: Path) -> None:
    """Creates a link to the run folder in the folder that Hydra has created for this start."""
    link = output_dir / "resumed"
    if own != output_dir.absolute() and output_dir.is_dir() and not link.is_symlink():
        link.symlink_to(own, target_is_directory=True)


def check_resume(point: ResumePoint, current: Fingerprint, output_dir: Path) -> ResumePoint:
    """Returns the resume point with tags for the changes that `resume_allow` permits.

    Returns a new run if `resume=last` has found a run on other data. Raises ConfigError for any other change that
    affects the result, and TrackingError if another process already works on the same run.
    """
    changed = _changes(point, current)
    if point.cfg.resume == LAST and "data" in changed:
        logger.warning("Run %s started with other data; starting a new run.", point.run_id)
        point = ResumePoint(point.cfg, output_dir)
        changed = {}
    if point.cfg.resume == LAST:
        _refuse_twice(point, current)
    _refuse_changes(point, changed)
    tags = {f"resumed.{key}": value for key, (_, value) in changed.items()}
    if point.fingerprint.get("cpu", current.cpu) != current.cpu:
        logger.warning("Run %s started on %s; its last bits may differ now.", point.run_id, point.fingerprint["cpu"])
        tags["resumed.cpu"] = current.cpu
    if point.run is not None:
        logger.info("Resuming run %s (%s).", point.run.info.run_name, point.run_id)
    _link(point.output_dir.absolute(), output_dir)
    return replace(point, changed=tags)


def _refuse_changes(point: ResumePoint, changed: Mapping[str, tuple[str, str]]) -> None:
    allowed = list(point.cfg.resume_allow)
    for key in (each for each in RANKING if each in changed):
        raise ConfigError(
            f"resume={point.run_id} would continue differently: {key} was {changed[key][0]}, now {changed[key][1]}. "
            "Expected the one that chose the best weights so far. Change it back, or start a new run with resume=null "
            f"model.weights=runs:/{point.run_id}."
        )
    refused = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in allowed)]
    if refused:
        differences = "; ".join(f"{key} was {changed[key][0]}, now {changed[key][1]}" for key in refused)
        raise ConfigError(
            f"resume={point.run_id} would continue differently: {differences}. Expected what the run started with. "
            f"Change it back, allow it by resume_allow=[{','.join(refused)}], or start a new run with resume=null."
        )


def _changes(point: ResumePoint, current: Fingerprint) -> dict[str, tuple[str, str]]:
    """Returns (recorded value, current value) by key for everything that can change the result."""
    changed: dict[str, tuple[str, str]] = {}
    if point.recorded is not None:
        before, after = values(point.recorded), values(point.cfg)
        # A key that an older version did not have is equivalent to null.
        pairs = {key: (before.get(key, "null"), after.get(key, "null")) for key in {**before, **after}}
        changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    for part, text in (("code", "other code"), ("versions", "other versions"), ("data", "other data")):
        if point.fingerprint.get(part, getattr(current, part)) != getattr(current, part):
            changed[part] = (point.fingerprint[part][:12], f"{getattr(current, part)[:12]} ({text})")
    replicas = point.fingerprint.get("replicas", str(current.replicas))
    if replicas != str(current.replicas):
        changed["replicas"] = (replicas, f"{current.replicas} (devices that share each batch)")
    threads = point.cfg.runtime.threads
    if threads is not None and point.threads != threads:
        changed["runtime.threads"] = (str(point.threads), str(threads))
    return changed


def refuse_epochs(point: ResumePoint, start: Position, steps: int, rates: Callable[[int], LearningRate]) -> None:
    """Raises ConfigError if nothing is left to do, or if `epochs` changes learning rates of completed steps.

    `steps` is the number of steps per epoch. `rates` returns the learning rate, or its schedule, for a total number of
    epochs.
    """
    epochs, before = point.cfg.epochs, int(point.fingerprint.get("epochs", point.cfg.epochs))
    done = start.epoch * steps + start.step
    finished = point.run is not None and point.run.info.status == "FINISHED"
    if done > epochs * steps or (finished and (start.stopped or done == epochs * steps)):
        raise ConfigError(
            f"resume={point.run_id} has nothing left to do: {start.epoch} epochs are done"
            f"{', and a callback ended the training' if start.stopped else ''}, received epochs={epochs}. "
            f"Set epochs above {start.epoch}, or start a new run with resume=null."
        )
    if epochs != before and "epochs" not in point.cfg.resume_allow and not _agree(rates(before), rates(epochs), done):
        raise ConfigError(
            f"epochs={epochs} instead of {before} changes the schedule: the {done} steps that are done would have had "
            f"other learning rates. Set epochs={before}, allow it by resume_allow=[epochs], or start a new "
            "run with resume=null."
        )


def _agree(before: LearningRate, after: LearningRate, done: int) -> bool:
    """Returns True if both give the first `done` steps the same learning rates."""
    if not callable(before) or not callable(after) or done == 0:
        return callable(before) == callable(after) or done == 0
    return bool(tf.reduce_all(_rates(before, done) == _rates(after, done)))


@tf.function
def _rates(schedule: Callable[[tf.Tensor], tf.Tensor], steps: int) -> tf.Tensor:
    """Returns the learning rates, [steps]. Calls `schedule` per step, because not every schedule accepts many steps."""
    return tf.map_fn(lambda step: tf.cast(schedule(step), tf.float32), tf.range(steps), fn_output_signature=tf.float32)
