"""What a run goes on from: nothing, or the run that `resume` names, in its own folder and with its own bits."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig

from experiments.config import check
from experiments.errors import ConfigError, TrackingError
from experiments.records.fingerprint import comparable, recorded, tags_of
from experiments.records.finished_run import download_run_files
from experiments.records.snapshot import read_config, read_overrides, typed_overrides
from experiments.tracking.journal import first_event
from experiments.tracking.liveness import is_at_work
from experiments.tracking.mlflow_store import existing_run, existing_store, find_runs
from experiments.tracking.uris import has_store

LAST = "last"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
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
        return {} if self.run is None else recorded(self.run.data.tags)

    @property
    def threads(self) -> int | None:
        """Compute threads, which decide bits: those it began with."""
        return int(self.fingerprint["threads"]) if "threads" in self.fingerprint else self.cfg.runtime.threads


def find_resume_point(cfg: DictConfig, output_dir: Path) -> ResumePoint:
    """The run that `cfg.resume` names, with its files on this machine; a new one where `last` finds none.

    Waits where only silence can tell that a process on another machine has ended. Raises TrackingError when there is
    no such run, or when a process works on it.
    """
    if cfg.resume is None:
        return ResumePoint(cfg, output_dir)
    if cfg.logging.tracking_uri is None:
        raise ConfigError(f"resume={cfg.resume} needs a record of runs, which logging=none does not keep.")
    if cfg.resume == LAST and not has_store(cfg.logging.tracking_uri):
        return ResumePoint(cfg, output_dir)
    client = existing_store(cfg.logging.tracking_uri)
    if cfg.resume == LAST:
        unfinished = unfinished_runs(client, cfg, comparable(cfg))
        run = next((run for run in unfinished if not is_at_work(client, run)), None)
    else:
        run = _named(client, cfg.resume)
    if run is None:
        return ResumePoint(cfg, output_dir)
    folder = _folder(client, run, output_dir)
    if cfg.resume != LAST and f"resume={cfg.resume}" in typed_overrides():
        cfg = _recomposed(folder)
    # The time is part of the name by default, and params cannot change.
    cfg.logging.run_name = run.info.run_name
    return ResumePoint(cfg, folder, run, read_config(folder / "config"))


def unfinished_runs(client: MlflowClient, cfg: DictConfig, parts: Mapping[str, str]) -> Iterator[Run]:
    """The newest first. parts: of the fingerprint that they share."""
    return find_runs(client, cfg.logging.experiment_name, tags_of(parts), status="!= 'FINISHED'")


def _named(client: MlflowClient, run_id: str) -> Run:
    run = existing_run(client, run_id, key="resume")
    if is_at_work(client, run):
        tags = run.data.tags
        raise TrackingError(
            f"resume={run_id} is alive: process {tags.get('pid')} on {tags.get('host')} works on it. "
            "Expected a run that nobody works on. Wait for its end, or stop it."
        )
    return run


def _folder(client: MlflowClient, run: Run, output_dir: Path) -> Path:
    """The run's own output folder; on another machine, or when it is gone, what MLflow has of it in the new one."""
    own = Path(run.data.tags.get("output_dir", output_dir))
    first = first_event(own)
    if own.is_dir() and (first is None or first["run_id"] == run.info.run_id):
        return own
    download_run_files(client, run.info.run_id, output_dir)
    return output_dir


def _recomposed(folder: Path) -> DictConfig:
    """The config of what was typed when the run began, and after it what is typed now."""
    before = read_overrides(folder / "config")
    # What adds or takes away works only once.
    new = [word for word in typed_overrides() if word not in before or word[0] not in "+~"]
    cfg = compose("config", [*before, *new])
    check(cfg)
    return cfg
