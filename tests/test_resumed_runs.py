"""Runs that go on in this process: with more epochs, and past a damaged checkpoint."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from omegaconf import DictConfig

from experiments.checkpoints import Checkpoints
from experiments.doors import CONF
from experiments.run import Result, run

pytestmark = pytest.mark.slow

WORDS = ("model=mlp", "model.dropout=0.3", "data.limit=200", "progress=none", "logging.system_metrics=false")
Train = Callable[..., Result]


@pytest.fixture
def train(composed: Callable[..., DictConfig], tmp_path: Path, empty_store: Path) -> Train:
    for name in ("one", "other"):
        shutil.copy(empty_store, tmp_path / f"{name}.db")

    def train(store: str, *words: str) -> Result:
        cfg = composed(*WORDS, f"logging.tracking_uri=sqlite:///{tmp_path}/{store}.db", *words)
        output = tmp_path / f"{store} {len(list(tmp_path.iterdir()))}"
        output.mkdir()
        GlobalHydra.instance().clear()
        with initialize_config_dir(CONF, version_base="1.3"):
            return run(cfg, output)

    return train


def variables(folder: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / "checkpoints")))
    kept = (name for name in reader.get_variable_to_dtype_map() if not name.startswith(("_CHECK", "save_counter")))
    return {name: reader.get_tensor(name) for name in kept}


def assert_equal(tmp_path: Path, one: Result, other: Result) -> None:
    mine, theirs = variables(one.output_dir), variables(other.output_dir)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)
    assert one.objective == other.objective
    assert points(tmp_path, "one", one) == points(tmp_path, "other", other)


def points(tmp_path: Path, store: str, result: Result) -> dict[str, list[tuple[int, float]]]:
    client = MlflowClient(f"sqlite:///{tmp_path}/{store}.db")
    (found,) = client.search_runs(["1"])
    assert (found.info.run_id, found.info.status) == (result.run_id, "FINISHED")
    names = [name for name in found.data.metrics if not name.startswith("test_")]
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(result.run_id, name)] for name in names
    }


def test_a_finished_run_goes_on_for_more_epochs(train: Train, tmp_path: Path) -> None:
    whole = train("other", "epochs=5")
    first = train("one", "epochs=2", "+logging.tags.purpose=test")
    more = train("one", f"resume={first.run_id}", "epochs=5")
    assert (more.run_id, more.output_dir) == (first.run_id, first.output_dir)
    assert (more.output_dir / "model" / "MLmodel").exists()
    assert_equal(tmp_path, more, whole)


def test_past_a_damaged_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train("other", "checkpoint.every_epoch=true")
    epoch_end = Checkpoints.on_epoch_end

    def stop(keeper: Checkpoints, epoch: int, logs: dict[str, float] | None = None) -> None:
        epoch_end(keeper, epoch, logs)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train("one", "checkpoint.every_epoch=true")
    newest = max(tmp_path.glob("one */checkpoints/ckpt-*.data*"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING, logger="experiments"):
        resumed = train("one", "checkpoint.every_epoch=true", "resume=last")
    assert f"{newest.name} is not what was written) is damaged; going on from checkpoint" in caplog.text
    assert_equal(tmp_path, resumed, whole)
