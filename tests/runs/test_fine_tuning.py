"""Fine-tuning: a second run starts from the best weights of a first one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.errors import TrackingError
from experiments.runs.run import run

pytestmark = pytest.mark.slow

UNCHANGED = ["epochs=1", "optimizer=sgd", "optimizer.learning_rate=1e-12", "model=mlp", "progress=none"]
"""Training that leaves all weights as they were loaded, up to rounding."""


class FinishedRun(NamedTuple):
    run_id: str
    store: str
    photos: Path


def best_arrays(client: MlflowClient, run_id: str, folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the layers in the best checkpoint of a run."""
    folder.mkdir()
    (index,) = Path(client.download_artifacts(run_id, "checkpoints/best", str(folder))).glob("best-*.index")
    reader = tf.train.load_checkpoint(str(index.with_suffix("")))
    names = [name for name in reader.get_variable_to_shape_map() if "kernel" in name or "bias" in name]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.parametrize("classes", [2, 3])
def test_run_starts_from_registered_weights(
    composed: Callable[..., DictConfig], finished_run: FinishedRun, tmp_path: Path, classes: int
) -> None:
    client, first = MlflowClient(finished_run.store), finished_run.run_id
    name = f"colours{classes}"
    client.create_registered_model(name)
    version = client.create_model_version(name, f"runs:/{first}/model", run_id=first).version
    client.set_registered_model_alias(name, "best", version)
    for part in ("train", "valid"):
        for colour in ["blue", "green", "red"][:classes]:
            (tmp_path / "photos" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / part / colour).symlink_to(finished_run.photos / part / colour)
    overrides = ["data=image_folder", f"data.path={tmp_path}/photos", "data.image_size=[16,16]", "data.batch_size=8"]
    overrides += [f"logging.tracking_uri={finished_run.store}", "logging.experiment_name=fine-tuning"]
    (tmp_path / "run").mkdir()
    second = run(composed(*overrides, *UNCHANGED, f"model.weights=models:/{name}@best"), tmp_path / "run").run_id
    assert second is not None
    data = client.get_run(second).data
    # An alias can move later, so the record names the run.
    assert (data.tags["weights_run_id"], data.params["model.weights"]) == (first, f"runs:/{first}")
    before, after = (best_arrays(client, each, tmp_path / each) for each in (first, second))
    assert before.keys() == after.keys()
    new = {key for key in after if before[key].shape != after[key].shape}
    assert {after[key].shape for key in new} == (set() if classes == 3 else {(64, 2), (2,)})
    for key in after.keys() - new:
        np.testing.assert_allclose(after[key], before[key], rtol=0, atol=1e-9)


@pytest.mark.parametrize("source", ["runs:/0123", "models:/colours@best"])
def test_missing_store_is_not_created(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed("data=digits", *UNCHANGED, f"model.weights={source}", "logging.tracking_uri=sqlite:///mlflow.db")
    with pytest.raises(TrackingError, match=r"there is no file 'mlflow.db': expected the database of runs"):
        run(cfg, tmp_path)
    assert not (tmp_path / "mlflow.db").exists()
