"""Runs record their number of devices, because it changes the bits of the result."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.runs.run import run

TINY = (
    *("data.limit=64", "model=mlp", "epochs=1", "progress=none", "logging.log_model=false"),
    *("logging.log_figures=false", "logging.system_metrics=false", "tensorboard.graph=false", "tensorboard.images=0"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "replicas"), [("mirrored", "2"), ("none", "1")])
def test_run_records_number_of_replicas(
    composed: Callable[..., DictConfig], tmp_path: Path, empty_store: Path, strategy: str, replicas: str
) -> None:
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    cfg = composed(*TINY, f"runtime.strategy={strategy}", f"logging.tracking_uri={store}")
    output = tmp_path / "output"
    output.mkdir()
    result = run(cfg, output)
    tags = MlflowClient(store).get_run(result.run_id).data.tags
    assert tags["fingerprint.replicas"] == replicas
