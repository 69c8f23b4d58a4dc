"""Reads finished runs from the tracking store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig

from experiments.checkpoints.layout import BEST, CHECKPOINTS
from experiments.data.base import DataSpec
from experiments.errors import TrackingError
from experiments.records.fingerprint import tags_of
from experiments.records.snapshot import read_snapshot
from experiments.tracking.redaction import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient


class FinishedRun(NamedTuple):
    """A run with its resolved config, secrets masked, the spec of its training split and a local checkpoint folder."""

    run_id: str
    cfg: DictConfig
    spec: DataSpec
    checkpoints: Path


@contextmanager
def finished_run(
    tracking_uri: str | None, experiment_name: str, run_id: str | None, checkpoint: str
) -> Iterator[FinishedRun]:
    """Yields the run `run_id` (None: the newest finished run), with local copies of the files that `checkpoint` needs.

    Raises TrackingError if there is no such run. The copies are removed at the end of the block.
    """
    from mlflow.exceptions import MlflowException

    from experiments.tracking.mlflow_store import existing_run, existing_store

    client = existing_store(tracking_uri)
    found = existing_run(client, run_id).info.run_id if run_id is not None else _newest(client, experiment_name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            cfg, spec = read_snapshot(Path(client.download_artifacts(found, "config", folder)))
            copies = _checkpoints(client, found, checkpoint, folder)
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"run_id={found} cannot be read back from {mask(client.tracking_uri)}: {error}. Expected a run of "
                "experiments train with the artifacts config/ and checkpoints/. Name another run_id."
            ) from error
        yield FinishedRun(found, cfg, spec, copies)


def download_run_files(client: "MlflowClient", run_id: str, output_dir: Path) -> None:
    """Downloads the files that are needed to resume a run, as far as the store has them."""
    for artifact in client.list_artifacts(run_id):
        if artifact.path in ("config", CHECKPOINTS, "tensorboard"):
            client.download_artifacts(run_id, artifact.path, str(output_dir))


def _checkpoints(client: "MlflowClient", run_id: str, checkpoint: str, folder: str) -> Path:
    """Downloads the checkpoints and returns their folder. For `best`, the others, which are as large, are left out."""
    if checkpoint == BEST:
        return Path(client.download_artifacts(run_id, f"{CHECKPOINTS}/{BEST}", folder)).parent
    return Path(client.download_artifacts(run_id, CHECKPOINTS, folder))


def _newest(client: "MlflowClient", experiment_name: str) -> str:
    from experiments.tracking.mlflow_store import find_runs

    # Parent runs of sweeps and runs of other programs have no fingerprint.
    ours: dict[str, str | None] = dict.fromkeys(tags_of({"config": ""}))
    newest = next(find_runs(client, experiment_name, ours, status="= 'FINISHED'", newest=1), None)
    if newest is None:
        raise TrackingError(
            f"logging.experiment_name={experiment_name} has no finished run in {mask(client.tracking_uri)}. "
            "Train one with experiments train, or name run_id=ID or another store by logging.tracking_uri."
        )
    return str(newest.info.run_id)
