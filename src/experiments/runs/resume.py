"""Finds the run to resume and its files."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig, OmegaConf

from experiments.config import check
from experiments.errors import ConfigError, TrackingError, reading
from experiments.records.fingerprint import comparable, recorded, tags_of
from experiments.records.finished_run import download_run_files
from experiments.records.snapshot import DATA, read_config, read_overrides
from experiments.records.trust import check_targets, typed_overrides, vetted_overrides
from experiments.tracking.journal import first_event
from experiments.tracking.liveness import is_at_work
from experiments.tracking.mlflow_store import existing_run, existing_store, find_runs
from experiments.tracking.uris import has_store

LAST = "last"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Starting point of a training: a new run, or a stopped run to resume.

    `cfg` is the config to train with and `output_dir` the run folder. `run` is None for a new run. `recorded` is the
    config that the run started with, and `changed` contains tags for the values that differ now.
    """

    cfg: DictConfig
    output_dir: Path
    run: Run | None = None
    recorded: DictConfig | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else str(self.run.info.run_id)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Parts of the fingerprint at the start of the run; empty for a new run."""
        return {} if self.run is None else recorded(self.run.data.tags)

    @property
    def threads(self) -> int | None:
        """Compute threads. A resumed run uses the same number again, because it affects the bits of the result."""
        return int(self.fingerprint["threads"]) if "threads" in self.fingerprint else self.cfg.runtime.threads


def find_resume_point(cfg: DictConfig, output_dir: Path) -> ResumePoint:
    """Finds the run that `cfg.resume` names and its files on this machine. Returns a new run if `last` finds none.

    Waits if a process on another machine may work on the run, as only missing heartbeats show that it has ended.
    Raises TrackingError if there is no such run, or if a process works on it.
    """
    if cfg.resume is None:
        return ResumePoint(cfg, output_dir)
    if cfg.logging.tracking_uri is None:
        raise ConfigError(f"resume={cfg.resume} needs a tracking store: received logging=none, expected mlflow.")
    if cfg.resume == LAST and not has_store(cfg.logging.tracking_uri):
        return ResumePoint(cfg, output_dir)
    client = existing_store(cfg.logging.tracking_uri)
    if cfg.resume == LAST:
        unfinished = unfinished_runs(client, cfg, comparable(cfg))
        run = next((run for run in unfinished if not is_at_work(client, run)), None)
    else:
        run = existing_run(client, cfg.resume, key="resume")
        if is_at_work(client, run):
            raise TrackingError(
                f"resume={cfg.resume} is alive: process {run.data.tags.get('pid')} on {run.data.tags.get('host')} "
                "works on it. Expected a run that no process works on. Wait for its end, or stop it."
            )
    if run is None:
        return ResumePoint(cfg, output_dir)
    folder, owner = _run_folder(client, run, output_dir), f"run {run.info.run_id}"
    # A sweep sets `resume` of its jobs itself, after composing their configs.
    if cfg.resume != LAST and f"resume={cfg.resume}" in typed_overrides():
        cfg = _recompose(cfg, folder / "config", owner)
    with reading(f"the fingerprint of {owner}"):
        numbers = [int(recorded(run.data.tags).get(name, 1)) for name in ("threads", "epochs")]
        if not all(0 < number < 1 << 30 for number in numbers):
            raise ValueError("it has numbers that are out of range")
    complete = (folder / "config" / DATA).is_file()
    return ResumePoint(cfg, folder, run, read_config(folder / "config", owner) if complete else None)


def unfinished_runs(client: MlflowClient, cfg: DictConfig, parts: Mapping[str, str]) -> Iterator[Run]:
    """Yields the unfinished runs with these parts of a fingerprint, newest first."""
    return find_runs(client, cfg.logging.experiment_name, tags_of(parts), status="!= 'FINISHED'")


def _run_folder(client: MlflowClient, run: Run, output_dir: Path) -> Path:
    """Returns the run folder. If it is not on this machine, downloads its files into `output_dir` and returns that."""
    own = Path(run.data.tags.get("output_dir", output_dir))
    # The path comes from the store. On another machine, or in another user's store, it may be any folder.
    first = first_event(own)
    if first is not None and first["run_id"] == run.info.run_id:
        return own
    download_run_files(client, existing_run(client, run.info.run_id, key="resume").info.run_id, output_dir)
    return output_dir


def _recompose(today: DictConfig, folder: Path, owner: str) -> DictConfig:
    """Composes the config from the overrides that the run started with, followed by those of this command."""
    before = vetted_overrides(read_overrides(folder, owner), typed_overrides(), owner)
    # Hydra raises an error if an override that adds or deletes a key is applied twice.
    new = [override for override in typed_overrides() if override not in before or override[0] not in "+~"]
    cfg = compose("config", [*before, *new])
    check_targets(OmegaConf.to_container(cfg, resolve=True), owner, today.allow_modules)
    check(cfg)
    return cfg
