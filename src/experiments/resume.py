"""What a run goes on from: nothing, or the run that `resume` names, in its own folder and with its own bits."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import tensorflow as tf
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig

from experiments.config import check
from experiments.errors import ConfigError, TrackingError
from experiments.fingerprint import PREFIX, Fingerprint, comparable, values
from experiments.liveness import HEARTBEAT_SECONDS, is_alive, is_elsewhere, signs_of_life
from experiments.loops.base import Position
from experiments.run_store import existing_run, existing_store
from experiments.schedules import LearningRate
from experiments.snapshot import read_config, read_overrides
from experiments.tracking.addresses import has_store
from experiments.tracking.journal import first_event

LAST = "last"
KEPT = ("config", "checkpoints", "tensorboard")
LOOK_SECONDS = 2.0
"""Between two looks at the heartbeat of a process that cannot be seen from here."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a run begins.

    cfg: to train with; output_dir: the run's own folder; run: None for a new one; recorded: the config it began with;
    changed: tags for what is different now.
    """

    cfg: DictConfig
    output_dir: Path
    run: Run | None = None
    recorded: DictConfig | None = None
    changed: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else str(self.run.info.run_id)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Its parts as the run began; empty for a new one."""
        tags = {} if self.run is None else self.run.data.tags
        return {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}

    @property
    def threads(self) -> int | None:
        """Compute threads, which decide bits: those it began with."""
        return int(self.fingerprint["threads"]) if "threads" in self.fingerprint else self.cfg.runtime.threads


def origin(cfg: DictConfig, output_dir: Path) -> Origin:
    """The run that `cfg.resume` names, with its files on this machine; a new one where `last` finds none.

    Waits where only silence can tell that a process on another machine has ended. Raises TrackingError when there is
    no such run, or when a process works on it.
    """
    if cfg.resume is None:
        return Origin(cfg, output_dir)
    if cfg.logging.tracking_uri is None:
        raise ConfigError(f"resume={cfg.resume} needs a record of runs, which logging=none does not keep.")
    if cfg.resume == LAST and not has_store(cfg.logging.tracking_uri):
        return Origin(cfg, output_dir)
    client = existing_store(cfg.logging.tracking_uri)
    run = _newest_unfinished(client, cfg) if cfg.resume == LAST else _named(client, cfg.resume)
    if run is None:
        return Origin(cfg, output_dir)
    folder = _folder(client, run, output_dir)
    recorded = read_config(folder / "config")
    typed = _retyped(folder) if _is_typed(cfg.resume) else cfg
    # The time is part of the name by default, and params cannot change.
    typed.logging.run_name = run.info.run_name
    return Origin(typed, folder, run, recorded)


def _newest_unfinished(client: MlflowClient, cfg: DictConfig) -> Run | None:
    return next((run for run in _unfinished(client, cfg, comparable(cfg)) if not _is_at_work(client, run)), None)


def _is_at_work(client: MlflowClient, run: Run) -> bool:
    """Waits for the next sign of a process that cannot be seen from here, or for the silence of a lost machine."""
    sign = run.data.tags.get("heartbeat")
    if is_alive(run) and is_elsewhere(run):
        logger.warning(
            "Run %s may still be at work on %s: waiting for its next sign of life, or for %d s without one.",
            *(run.info.run_id, run.data.tags.get("host"), HEARTBEAT_SECONDS),
        )
    while is_alive(run) and is_elsewhere(run) and run.data.tags.get("heartbeat") == sign:
        time.sleep(LOOK_SECONDS)
        run = client.get_run(run.info.run_id)
    return is_alive(run)


def _unfinished(client: MlflowClient, cfg: DictConfig, parts: Mapping[str, str]) -> list[Run]:
    """The newest first. parts: of the fingerprint that they share."""
    experiment = client.get_experiment_by_name(cfg.logging.experiment_name)
    if experiment is None:
        return []
    same = " and ".join(f"tags.`{PREFIX}{name}` = '{value}'" for name, value in parts.items())
    return list(
        client.search_runs(
            [experiment.experiment_id], f"attributes.status != 'FINISHED' and {same}", order_by=["start_time DESC"]
        )
    )


def _refuse_twice(found: Origin, now: Fingerprint) -> None:
    """Raises TrackingError where a process works on a newer run of the same config and data, or by now on this one.

    Looked at late: two that were started together have both found what nobody worked on.
    """
    if not has_store(found.cfg.logging.tracking_uri):
        return
    parts = {name: getattr(now, name) for name in ("config", "code", "versions", "data")}
    same = _unfinished(existing_store(found.cfg.logging.tracking_uri), found.cfg, parts)
    ids = [run.info.run_id for run in same]
    newer = same[: ids.index(found.run_id) + 1] if found.run_id in ids else same
    for run in filter(is_alive, newer):
        tags = run.data.tags
        raise TrackingError(
            f"resume=last would do again what run {run.info.run_id} does: a process on {tags.get('host')} works in "
            f"'{tags.get('output_dir')}'. Expected no other run of this config and data at work. Wait for its end, or "
            "stop it; resume=null begins another."
        )


def _named(client: MlflowClient, run_id: str) -> Run:
    run = existing_run(client, run_id, key="resume")
    if _is_at_work(client, run):
        tags = run.data.tags
        raise TrackingError(
            f"resume={run_id} is alive: process {tags.get('pid')} on {tags.get('host')} works on it. "
            "Expected a run that nobody works on. Wait for its end, or stop it."
        )
    return run


def identity(output_dir: Path, found: Fingerprint) -> dict[str, str]:
    """Tags by which a run and the process that works on it are found again."""
    return {**found.tags(), **signs_of_life(output_dir)}


def _folder(client: MlflowClient, run: Run, output_dir: Path) -> Path:
    """The run's own output folder; on another machine, or when it is gone, what MLflow has of it in the new one."""
    own = Path(run.data.tags.get("output_dir", output_dir))
    first = first_event(own)
    if own.is_dir() and (first is None or first["run_id"] == run.info.run_id):
        return own
    for artifact in client.list_artifacts(run.info.run_id):
        if artifact.path in KEPT:
            client.download_artifacts(run.info.run_id, artifact.path, str(output_dir))
    return output_dir


def _link(own: Path, output_dir: Path) -> None:
    """In the folder that Hydra made for this start: where the run really is."""
    link = output_dir / "resumed"
    if own != output_dir.absolute() and output_dir.is_dir() and not link.is_symlink():
        link.symlink_to(own, target_is_directory=True)


def typed_overrides() -> list[str]:
    """What was typed to compose the config; nothing where it came another way."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _is_typed(run_id: str) -> bool:
    """Not where other code composed the config and knows what it does."""
    return f"resume={run_id}" in typed_overrides() and run_id != LAST


def _retyped(folder: Path) -> DictConfig:
    """What was typed when the run began, and after it what is typed now."""
    before = read_overrides(folder / "config")
    # What adds or takes away works only once.
    new = [word for word in typed_overrides() if word not in before or word[0] not in "+~"]
    typed = compose("config", [*before, *new])
    check(typed)
    return typed


def checked(found: Origin, now: Fingerprint, output_dir: Path) -> Origin:
    """With the tags for what `resume_allow` lets change; a new run where `last` finds other data.

    Raises ConfigError for what would change the result otherwise, TrackingError where a process does the same already.
    """
    changed = _changes(found, now)
    if found.cfg.resume == LAST and "data" in changed:
        logger.warning("Run %s began with other data; beginning a new run.", found.run_id)
        found = Origin(found.cfg, output_dir)
        changed = {}
    if found.cfg.resume == LAST:
        _refuse_twice(found, now)
    _refuse(found, changed)
    tags = {f"resumed.{key}": value for key, (_, value) in changed.items()}
    if found.fingerprint.get("cpu", now.cpu) != now.cpu:
        logger.warning("Run %s began on %s; its last bits may differ now.", found.run_id, found.fingerprint["cpu"])
        tags["resumed.cpu"] = now.cpu
    if found.run is not None:
        logger.info("Going on with run %s (%s).", found.run.info.run_name, found.run_id)
    _link(found.output_dir.absolute(), output_dir)
    return replace(found, changed=tags)


def _refuse(found: Origin, changed: Mapping[str, tuple[str, str]]) -> None:
    allowed = list(found.cfg.resume_allow)
    refused = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in allowed)]
    if refused:
        told = "; ".join(f"{key} was {changed[key][0]}, now {changed[key][1]}" for key in refused)
        raise ConfigError(
            f"resume={found.run_id} would go on differently: {told}. Expected what the run began with. "
            f"Change it back, allow it by resume_allow=[{','.join(refused)}], or begin anew with resume=null."
        )


def _changes(found: Origin, now: Fingerprint) -> dict[str, tuple[str, str]]:
    """Key -> (as recorded, now)."""
    changed: dict[str, tuple[str, str]] = {}
    if found.recorded is not None:
        before, after = values(found.recorded), values(found.cfg)
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        changed = {key: (before.get(key, "not there"), after.get(key, "not there")) for key in keys}
    for part, words in (("code", "other code"), ("versions", "other versions"), ("data", "other data")):
        if found.fingerprint.get(part, getattr(now, part)) != getattr(now, part):
            changed[part] = (found.fingerprint[part][:12], f"{getattr(now, part)[:12]} ({words})")
    replicas = found.fingerprint.get("replicas", str(now.replicas))
    if replicas != str(now.replicas):
        changed["replicas"] = (replicas, f"{now.replicas} (devices that share each batch)")
    wanted = found.cfg.runtime.threads
    if wanted is not None and found.threads != wanted:
        changed["runtime.threads"] = (str(found.threads), str(wanted))
    return changed


def refuse_epochs(found: Origin, start: Position, steps: int, rates: Callable[[int], LearningRate]) -> None:
    """steps: of an epoch; rates: total number of epochs -> learning rate or schedule.

    Raises ConfigError where nothing is left to do, or where the steps that are done would have had other rates.
    """
    epochs, before = found.cfg.epochs, int(found.fingerprint.get("epochs", found.cfg.epochs))
    done = start.epoch * steps + start.step
    finished = found.run is not None and found.run.info.status == "FINISHED"
    if done > epochs * steps or (finished and (start.stopped or done == epochs * steps)):
        raise ConfigError(
            f"resume={found.run_id} has nothing left to do: {start.epoch} epochs are done"
            f"{', and a callback ended the training' if start.stopped else ''}, received epochs={epochs}. "
            f"Set epochs above {start.epoch}, or begin anew with resume=null."
        )
    if epochs != before and "epochs" not in found.cfg.resume_allow and not _same(rates(before), rates(epochs), done):
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
