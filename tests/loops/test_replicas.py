"""Under a mirrored strategy the number of devices is recorded, as it is part of what makes bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.run import run


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "replicas"), [("mirrored", "2"), ("none", "1")])
def test_a_run_records_its_devices(
    composed: Callable[..., DictConfig], tmp_path: Path, strategy: str, replicas: str
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    words = ("data.limit=200", "model=mlp", "epochs=1", "progress=none", f"runtime.strategy={strategy}")
    result = run(composed(*words, f"logging.tracking_uri={store}", "logging.log_model=false"), tmp_path)
    tags = MlflowClient(store).get_run(result.run_id).data.tags
    assert tags["fingerprint.replicas"] == replicas
