"""Two starts of a job script that always passes resume=last."""

import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.trainings import Started, Trainings, output

pytestmark = pytest.mark.slow
OVERRIDES = [
    *("data=digits", "data.limit=200", "model=mlp", "progress=none", "logging.log_model=false"),
    *("logging.log_figures=false", "tensorboard.graph=false", "checkpoint.every_epoch=true", "resume=last"),
]
ENDLESS = "epochs=1000000"
STEP = "experiments.checkpoints.callback.Checkpoints.on_train_batch_end"


def only_run(folder: Path) -> Run:
    (run,) = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"])
    return run


def test_second_start_exits_and_names_active_run(trainings: Trainings, tmp_path: Path) -> None:
    fault = {"call": STEP, "number": 20, "when": "before"}
    assert trainings.train(tmp_path, *OVERRIDES, ENDLESS, fault=fault) == -9, output(tmp_path)
    overrides = [*OVERRIDES, ENDLESS]
    with trainings.started(tmp_path, *overrides) as one, trainings.started(tmp_path, *overrides) as other:
        while one.goes_on() and other.goes_on():
            time.sleep(0.1)
        second, first = sorted((one, other), key=Started.goes_on)
        (line,) = second.stderr.splitlines()
        assert second.wait() == 1
        run = only_run(tmp_path)
        again = f"resume=last would repeat run {run.info.run_id}: a process on {run.data.tags['host']} works in"
        # The second message comes from the lock, if both processes have checked at the same moment.
        assert line.startswith((f"error: {again}", f"error: another process works in '{run.data.tags['output_dir']}'"))
        assert trainings.train(tmp_path, *OVERRIDES, "epochs=1") == 1
        assert output(tmp_path).splitlines()[-1].startswith(f"error: {again}")
        first.send(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM, first.stderr
    ended = only_run(tmp_path)
    assert (ended.info.run_id, ended.info.status) == (run.info.run_id, "KILLED")
