"""What MLflow's client cannot do with artifacts: take some of a run's away. Its artifact repositories can."""

import logging
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

_log = logging.getLogger(__name__)


def remove_others(client: MlflowClient, run_id: str, directory: Path, folder: str) -> None:
    """Takes away the files of the run's artifact `folder` that `directory` does not hold."""
    held = {f"{folder}/{path.relative_to(directory).as_posix()}" for path in directory.rglob("*") if path.is_file()}
    others = [path for path in _files(client, run_id, folder) if path not in held]
    if not others:
        return
    repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)
    try:
        for path in others:
            repository.delete_artifacts(path)
    except NotImplementedError:
        _log.warning("This artifact store removes nothing: older files of %s/ stay there.", folder)


def _files(client: MlflowClient, run_id: str, folder: str) -> Iterator[str]:
    for artifact in client.list_artifacts(run_id, folder):
        if artifact.is_dir:
            yield from _files(client, run_id, artifact.path)
        else:
            yield artifact.path
