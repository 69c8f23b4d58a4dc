"""A store of runs that is there already: reading must not make one."""

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from experiments.errors import TrackingError
from experiments.masking import mask
from experiments.tracking.addresses import SQLITE, has_store
from experiments.tracking.mlflow_store import open_store


def existing_store(tracking_uri: str | None) -> MlflowClient:
    """Training creates a database file; reading must not."""
    if tracking_uri is None:
        raise TrackingError("logging=none keeps no runs to read. Set logging=mlflow.")
    if not has_store(tracking_uri):
        raise TrackingError(
            f"there is no file '{tracking_uri.removeprefix(SQLITE)}': expected the database of runs. "
            "Go to the folder where they were trained, or set logging.tracking_uri=sqlite:///FILE or an address."
        )
    return open_store(tracking_uri)


def existing_run(client: MlflowClient, run_id: str, key: str = "run_id") -> Run:
    """key: of the config, which the message names."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise TrackingError(
            f"{key}={run_id} is not in {mask(client.tracking_uri)}: {mask(error.message)}. Name the id of a run "
            "there, as MLflow's page shows it, or its store by logging.tracking_uri."
        ) from error


def at_best(run: Run, client: MlflowClient, metric: str, mode: str) -> dict[str, float]:
    """The metrics of the epoch that was best by `metric`."""
    sign = 1 if mode == "max" else -1
    best = max(client.get_metric_history(run.info.run_id, metric), key=lambda point: (sign * point.value, -point.step))
    points = [
        point
        for name in run.data.metrics
        if "/" not in name
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    return {point.key: point.value for point in points if point.step == best.step}
