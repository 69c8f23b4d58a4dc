"""A finished run, read back from the tracking store."""

from pathlib import Path
from typing import NamedTuple

import keras
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig

from experiments import checkpoints, runtime
from experiments.build import build
from experiments.data.base import DataSpec
from experiments.errors import TrackingError
from experiments.snapshot import read_snapshot
from experiments.tracking.mlflow_store import open_store


class PastRun(NamedTuple):
    """cfg: as resolved then, secrets masked; spec: of the training split; checkpoints: a local folder."""

    run_id: str
    cfg: DictConfig
    spec: DataSpec
    checkpoints: Path


def open_run(tracking_uri: str, experiment_name: str, run_id: str | None) -> PastRun:
    """The named run, or the newest finished one of the experiment. Raises TrackingError when there is none."""
    client = open_store(tracking_uri)
    found = run_id or _newest(client, experiment_name)
    try:
        cfg, spec = read_snapshot(Path(client.download_artifacts(found, "config")))
        return PastRun(found, cfg, spec, Path(client.download_artifacts(found, "checkpoints")))
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"run_id={found} cannot be read back from {tracking_uri}: {error}. Expected a run of "
            "python -m experiments.train with the artifacts config/ and checkpoints/. Name another run_id, or the "
            "store by logging.tracking_uri."
        ) from error


def _newest(client: MlflowClient, experiment_name: str) -> str:
    experiment = client.get_experiment_by_name(experiment_name)
    runs = experiment and client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FINISHED'", order_by=["start_time DESC"], max_results=1
    )
    if not runs:
        raise TrackingError(
            f"logging.experiment_name={experiment_name} has no finished run in {client.tracking_uri}. "
            "Train one with python -m experiments.train, or name run_id=ID or another store by logging.tracking_uri."
        )
    return str(runs[0].info.run_id)


def restored_model(past: PastRun, checkpoint: str) -> keras.Model:
    """The run's model, compiled for evaluation, with the weights of checkpoint `best`, `latest` or a number."""
    cfg = past.cfg
    runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": None, "device": "auto", "strategy": "none"})
    if "weights" in cfg.model:
        # The checkpoint holds them; reading them again would need the file or the network they came from.
        cfg.model.weights = None
    model = build(cfg.model, input_shape=past.spec.input_shape, num_classes=past.spec.num_classes)
    model(keras.ops.zeros((1, *past.spec.input_shape), past.spec.input_dtype))
    checkpoints.restore_weights(model, checkpoints.find(past.checkpoints, checkpoint))
    metrics = [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
    model.compile(loss=build(cfg.loss), metrics=metrics, jit_compile=False)
    return model
