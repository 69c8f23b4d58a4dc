"""The logged model of a run: its best weights as a model of the MLflow store, with a page and metrics of its own."""

import logging
import math
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_MODEL_VERSIONS

from experiments.errors import Rejected
from experiments.tracking.journal import Event, Forbidden, Unavailable
from experiments.tracking.mlflow_store import checked

logger = logging.getLogger(__name__)
WEIGHTS = "weights_sha256"  # tag of the logged models of this package


def log_model(client: MlflowClient, run: Run, path: Path, event: Event) -> str | None:
    """Uploads the folder `path` as the logged model of the run, and returns the model's address.

    A repetition, or a resumed run with the same best weights, uses the same model. Other weights replace it, unless a
    version of it is registered. Returns None if the store has no logged models, as servers before MLflow 3 have none.
    """
    name, step, digest = event["folder"], event["model"]["step"], event["model"]["digest"]
    found = _models(client, run, name)
    if found is None:
        return None
    if all(model.tags[WEIGHTS] != digest for model in found):
        client.create_logged_model(run.info.experiment_id, name, run.info.run_id, {WEIGHTS: digest}, run.data.params)
        # MLflow's client repeats a request whose answer is lost, which creates a second model.
        found = _models(client, run, name) or []
    model = checked(client, next(model for model in found if model.tags[WEIGHTS] == digest), writes=True)
    client.log_model_artifacts(model.model_id, str(path))
    _link_metrics(client, run, model.model_id, event)
    if run.outputs is None or all(output.model_id != model.model_id for output in run.outputs.model_outputs):
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    for other in found:
        if other.model_id != model.model_id and MLFLOW_MODEL_VERSIONS not in other.tags:
            try:
                client.delete_logged_model(other.model_id)
            except Forbidden:
                logger.warning("This account cannot delete models: %s stays beside the new one.", other.model_id)
    return f"models:/{model.model_id}"


def _models(client: MlflowClient, run: Run, name: str) -> list[LoggedModel] | None:
    """Returns the run's models of this package, the newest first; None if the store has no logged models."""
    own = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
    try:
        found = client.search_logged_models([run.info.experiment_id], own)
    except (Rejected, Unavailable) as error:
        if getattr(error.__cause__, "get_http_status_code", int)() not in (404, 405):
            raise
        client.get_run(run.info.run_id)  # Raises if the answer came from a proxy whose server is down.
        return None
    return [model for model in found if WEIGHTS in model.tags]


def _link_metrics(client: MlflowClient, run: Run, model_id: str, event: Event) -> None:
    """Links metrics of the run to the model and to their data set.

    The store adds each linked metric to the run too. With the time of the recorded point, it is that point.
    """
    inputs = run.inputs.dataset_inputs if run.inputs else []
    datasets = {tag.value: item.dataset for item in inputs for tag in item.tags if tag.key == MLFLOW_DATASET_CONTEXT}
    metrics = []
    for name, (value, step, context) in event["model"]["metrics"].items():
        points = client.get_metric_history(run.info.run_id, name)
        times = [point.timestamp for point in points if (point.step, point.value) == (step, value)]
        time, dataset = [*times, event["time"]][0], datasets.get(context)
        split = (dataset.name, dataset.digest) if dataset else (None, None)
        metrics.append(Metric(name, value, time, step, model_id, *split, run.info.run_id))
    # The store would link 0 for NaN.
    client.log_batch(run.info.run_id, metrics=[metric for metric in metrics if math.isfinite(metric.value)])
