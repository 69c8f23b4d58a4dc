"""Creates stopped runs without training them, and resumes them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from experiments.config.registry import CONF
from experiments.data.base import DataSpec
from experiments.records.fingerprint import Fingerprint, fingerprint
from experiments.records.snapshot import write_snapshot
from experiments.runs import resume, resume_checks
from experiments.tracking.journal import Journal
from experiments.tracking.liveness import run_lock, signs_of_life
from experiments.tracking.mlflow_store import get_or_create_experiment, open_store

Compose = Callable[..., DictConfig]
SPEC = DataSpec((8, 8, 1), "uint8", 2, ("a", "b"), 5, "digest", (2, 3), "drawn")
THREADS = 2


class Runs:
    """Creates runs in the state that a stopped training leaves."""

    def __init__(self, composed: Compose, store: str, folder: Path) -> None:
        self._composed, self._folder = composed, folder
        self.client = open_store(store)
        self._overrides = [f"logging.tracking_uri={store}", f"logging.experiment_name={folder.name}"]
        self._count = 0

    def cfg(self, *overrides: str) -> DictConfig:
        return self._composed(*self._overrides, *overrides)

    def create(self, *overrides: str, status: str = "KILLED", with_snapshot: bool = True, **tags: str) -> str:
        self._count += 1
        cfg, folder = self.cfg(*overrides), self._folder / f"run {self._count}"
        identity = {**current_fingerprint(cfg).tags(), **signs_of_life(folder), **tags}
        experiment = get_or_create_experiment(self.client, cfg.logging.experiment_name)
        run_id = str(self.client.create_run(experiment, run_name=f"run-{self._count}", tags=identity).info.run_id)
        with run_lock(folder):
            pass  # leaves a lock file that no process holds, like a process that has ended
        journal = Journal(folder)
        journal.open()
        journal.append("start", run_id=run_id, tracking_uri="")
        journal.close()
        if with_snapshot:
            write_snapshot(folder / "config", cfg, SPEC, [*self._overrides, *overrides])
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def find(self, *overrides: str) -> resume.ResumePoint:
        output = self._folder / "new"
        output.mkdir(exist_ok=True)
        cfg = self.cfg(*overrides)
        # Resuming composes the recorded overrides again, which needs an initialized Hydra as in a command.
        GlobalHydra.instance().clear()
        with initialize_config_dir(CONF, version_base="1.3"):
            return resume.find_resume_point(cfg, output)

    def check(self, *overrides: str, **changed: Any) -> resume.ResumePoint:
        """Resumes with a fingerprint whose parts `changed` differ from the recorded ones."""
        found = self.find(*overrides)
        current = replace(current_fingerprint(found.cfg, found.threads), **changed)
        return resume_checks.check_resume(found, current, self._folder / "new")

    def output_dir(self, run_id: str) -> Path:
        return Path(self.client.get_run(run_id).data.tags["output_dir"])


def current_fingerprint(cfg: DictConfig, threads: int | None = THREADS) -> Fingerprint:
    return fingerprint(cfg, ["digest"], threads, replicas=1)
