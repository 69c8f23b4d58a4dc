"""The same sweep with each multi-process launcher: one job fails, and the sweep is resumed."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="installed by make test-launchers only")
TINY = [
    *("-m", "data=digits", "data.limit=100", "model=mlp", "epochs=1", "progress=none", "hydra.sweep.dir=swept"),
    *("logging.log_model=false", "logging.log_figures=false", "tensorboard.graph=false"),
    *("logging.system_metrics=false", "+callbacks.once._target_=own.FailOnce", "+callbacks.once.mark=a,b"),
]
OWN = """
from pathlib import Path

import keras


class FailOnce(keras.callbacks.Callback):
    def __init__(self, mark):
        super().__init__()
        self.mark = Path(mark)

    def on_train_begin(self, logs=None):
        if self.mark.name == "b" and not self.mark.exists():
            self.mark.touch()
            raise RuntimeError("this once")
"""


@pytest.fixture
def ended_ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state that a cluster leaves which was killed: Ray remembers its address."""
    with TemporaryDirectory(dir="/tmp") as folder:  # short, as Ray limits the length of its paths
        monkeypatch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        yield


@pytest.mark.usefixtures("ended_ray_cluster")
@pytest.mark.parametrize("launcher", ["joblib", "ray", "submitit_local"])
def test_failed_sweep_resumes(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    # Workers start in different folders, so the paths are absolute.
    overrides = [
        f"+callbacks.once.mark={tmp_path}/a,{tmp_path}/b" if "mark" in override else override for override in TINY
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def train(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "experiments.train", *more, f"hydra/launcher={launcher}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    first = train(*overrides, "sweep.workers=2")
    assert first.returncode == 1, first.stderr
    assert states(tmp_path) == ["COMPLETE", "FAIL"]
    # Overrides with paths or custom components have to be typed again.
    second = train(*overrides, "sweep.resume=last", "sweep.workers=1")
    assert second.returncode == 0, second.stderr
    assert states(tmp_path) == ["COMPLETE", "COMPLETE"]
    found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert [run.info.status for run in found] == ["FINISHED"] * 3


def states(folder: Path) -> list[str]:
    with (folder / "swept" / "summary" / "jobs.csv").open() as file:
        return [row["state"] for row in csv.DictReader(file)]
