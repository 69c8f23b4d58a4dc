"""Reads finished runs from the tracking store."""

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig, OmegaConf

from experiments.checkpoints.layout import BEST, CHECKPOINTS
from experiments.data.base import DataSpec
from experiments.errors import TrackingError, reading
from experiments.records.named_run import SWEEP, is_parent, named_run, sweep_of
from experiments.records.snapshot import read_snapshot
from experiments.records.trust import check_targets
from experiments.tracking.redaction import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient
logger = logging.getLogger(__name__)


class FinishedRun(NamedTuple):
    """A run with its checked config, secrets masked, the spec of its training split and a local checkpoint folder."""

    run_id: str
    cfg: DictConfig
    spec: DataSpec
    checkpoints: Path


@contextmanager
def finished_run(command: DictConfig) -> Iterator[FinishedRun]:
    """Yields the run `command.run_id` (None: the newest finished run), with copies of the files of its checkpoint.

    Raises TrackingError if there is no such run, or if its config names a target that is not allowed. The copies are
    removed at the end of the block.
    """
    from experiments.tracking.mlflow_store import existing_run, existing_store

    client = existing_store(command.logging.tracking_uri)
    run_id = existing_run(client, _selected(client, command)).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        with reading(f"config/ or checkpoints/ of run {run_id} in {mask(client.tracking_uri)}"):
            cfg, spec = read_snapshot(Path(client.download_artifacts(run_id, "config", folder)), f"run {run_id}")
            check_targets(OmegaConf.to_container(cfg), f"run {run_id}", command.allow_modules, stored=True)
            # For `best`, the other checkpoints, which are as large, are left out.
            wanted = f"{CHECKPOINTS}/{BEST}" if command.checkpoint == BEST else CHECKPOINTS
            copies = Path(client.download_artifacts(run_id, wanted, folder))
        yield FinishedRun(run_id, cfg, spec, copies.parent if command.checkpoint == BEST else copies)


def download_run_files(client: "MlflowClient", run_id: str, output_dir: Path) -> None:
    """Downloads the files that are needed to resume a run, as far as the store has them."""
    (output_dir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)  # a run may have been lost before its first upload
    for artifact in client.list_artifacts(run_id):
        if artifact.path in ("config", CHECKPOINTS, "tensorboard"):
            client.download_artifacts(run_id, artifact.path, str(output_dir))


def download_best(run_id: str, destination: str) -> Path:
    """Downloads the best checkpoint of a run from the current store of MLflow, and returns its folder."""
    from experiments.tracking.mlflow_store import checked

    client = store_of_weights()
    run = checked(client, client.get_run(run_id))
    return Path(client.download_artifacts(run.info.run_id, f"{CHECKPOINTS}/{BEST}", destination))


def store_of_weights(tracking_uri: str | None = None) -> "MlflowClient":
    """Returns a client of the store, None for the current one of MLflow. Raises TrackingError if there is no store."""
    import mlflow

    from experiments.tracking.mlflow_store import existing_store

    return existing_store(tracking_uri or mlflow.get_tracking_uri())


def _selected(client: "MlflowClient", command: DictConfig) -> str:
    """Returns the id of the run that `run_id` or `sweep` selects; for the parent run of a sweep, of its best job."""
    from experiments.tracking.mlflow_store import find_runs

    experiment = command.logging.experiment_name
    if command.sweep is not None:
        tags = {SWEEP: None if command.sweep == "last" else sweep_of(client, str(command.sweep))}
        run = next(filter(is_parent, find_runs(client, experiment, tags)), None)
    else:
        run = named_run(client, command.run_id, experiment)
    if run is not None and not is_parent(run):
        return str(run.info.run_id)
    best = re.fullmatch(r"(#\d+) run (\w+)", "" if run is None else run.data.tags.get("best job", ""))
    if best is None or run is None:
        raise TrackingError(
            f"{'run_id' if command.sweep is None else 'sweep'}={command.sweep or command.run_id} has no best job in "
            f"{mask(client.tracking_uri)}: expected a sweep that has ended. Set run_id=ID of one of its jobs, or "
            "sweep=last for the newest sweep of logging.experiment_name."
        )
    logger.info("Reading run %s: the best job, %s, of sweep %s.", best[2], best[1], run.data.tags[SWEEP])
    return best[2]
