"""Checks that a resumed run would go on as it began."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from experiments.errors import ConfigError, TrackingError
from experiments.loops.base import Position
from experiments.records.fingerprint import Fingerprint, values
from experiments.runs.resume import LAST, ResumePoint, unfinished_runs
from experiments.schedules import LearningRate
from experiments.tracking.liveness import is_alive
from experiments.tracking.mlflow_store import existing_store
from experiments.tracking.uris import has_store

logger = logging.getLogger(__name__)


def _refuse_twice(point: ResumePoint, current: Fingerprint) -> None:
    """Raises TrackingError where a process works on a newer run of the same config and data, or by now on this one.

    Looked at late: two that were started together have both found what nobody worked on.
    """
    if not has_store(point.cfg.logging.tracking_uri):
        return
    parts = {name: getattr(current, name) for name in ("config", "code", "versions", "data")}
    same = list(unfinished_runs(existing_store(point.cfg.logging.tracking_uri), point.cfg, parts))
    ids = [run.info.run_id for run in same]
    newer = same[: ids.index(point.run_id) + 1] if point.run_id in ids else same
    for run in filter(is_alive, newer):
        tags = run.data.tags
        raise TrackingError(
            f"resume=last would do again what run {run.info.run_id} does: a process on {tags.get('host')} works in "
            f"'{tags.get('output_dir')}'. Expected no other run of this config and data at work. Wait for its end, or "
            "stop it; resume=null begins another."
        )


def _link(own: Path, output_dir: Path) -> None:
    """In the folder that Hydra made for this start: where the run really is."""
    link = output_dir / "resumed"
    if own != output_dir.absolute() and output_dir.is_dir() and not link.is_symlink():
        link.symlink_to(own, target_is_directory=True)


def check_resume(point: ResumePoint, current: Fingerprint, output_dir: Path) -> ResumePoint:
    """With the tags for what `resume_allow` lets change; a new run where `last` finds other data.

    Raises ConfigError for what would change the result otherwise, TrackingError where a process does the same already.
    """
    changed = _changes(point, current)
    if point.cfg.resume == LAST and "data" in changed:
        logger.warning("Run %s began with other data; beginning a new run.", point.run_id)
        point = ResumePoint(point.cfg, output_dir)
        changed = {}
    if point.cfg.resume == LAST:
        _refuse_twice(point, current)
    _refuse(point, changed)
    tags = {f"resumed.{key}": value for key, (_, value) in changed.items()}
    if point.fingerprint.get("cpu", current.cpu) != current.cpu:
        logger.warning("Run %s began on %s; its last bits may differ now.", point.run_id, point.fingerprint["cpu"])
        tags["resumed.cpu"] = current.cpu
    if point.run is not None:
        logger.info("Going on with run %s (%s).", point.run.info.run_name, point.run_id)
    _link(point.output_dir.absolute(), output_dir)
    return replace(point, changed=tags)


def _refuse(point: ResumePoint, changed: Mapping[str, tuple[str, str]]) -> None:
    allowed = list(point.cfg.resume_allow)
    refused = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in allowed)]
    if refused:
        differences = "; ".join(f"{key} was {changed[key][0]}, now {changed[key][1]}" for key in refused)
        raise ConfigError(
            f"resume={point.run_id} would go on differently: {differences}. Expected what the run began with. "
            f"Change it back, allow it by resume_allow=[{','.join(refused)}], or begin anew with resume=null."
        )


def _changes(point: ResumePoint, current: Fingerprint) -> dict[str, tuple[str, str]]:
    """Key -> (as recorded, now)."""
    changed: dict[str, tuple[str, str]] = {}
    if point.recorded is not None:
        before, after = values(point.recorded), values(point.cfg)
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        changed = {key: (before.get(key, "not there"), after.get(key, "not there")) for key in keys}
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
    """steps: of an epoch; rates: total number of epochs -> learning rate or schedule.

    Raises ConfigError where nothing is left to do, or where the steps that are done would have had other rates.
    """
    epochs, before = point.cfg.epochs, int(point.fingerprint.get("epochs", point.cfg.epochs))
    done = start.epoch * steps + start.step
    finished = point.run is not None and point.run.info.status == "FINISHED"
    if done > epochs * steps or (finished and (start.stopped or done == epochs * steps)):
        raise ConfigError(
            f"resume={point.run_id} has nothing left to do: {start.epoch} epochs are done"
            f"{', and a callback ended the training' if start.stopped else ''}, received epochs={epochs}. "
            f"Set epochs above {start.epoch}, or begin anew with resume=null."
        )
    if epochs != before and "epochs" not in point.cfg.resume_allow and not _same(rates(before), rates(epochs), done):
        raise ConfigError(
            f"epochs={epochs} instead of {before} changes the schedule: the {done} steps that are done would have had "
            f"other learning rates. Set epochs={before}, allow it by resume_allow=[epochs], or begin anew with "
            "resume=null."
        )


def _same(before: LearningRate, after: LearningRate, done: int) -> bool:
    """Whether both give the first `done` steps the same rates."""
    if not callable(before) or not callable(after) or done == 0:
        return callable(before) == callable(after) or done == 0
    return bool(tf.reduce_all(_rates(before, done) == _rates(after, done)))


@tf.function
def _rates(schedule: Callable[[tf.Tensor], tf.Tensor], steps: int) -> tf.Tensor:
    """[steps], one by one: not every schedule takes many steps at once."""
    return tf.map_fn(lambda step: tf.cast(schedule(step), tf.float32), tf.range(steps), fn_output_signature=tf.float32)
