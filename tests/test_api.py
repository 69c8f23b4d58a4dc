"""Functions for notebooks: results equal to those of the commands, errors, and the state of the process."""

import csv
import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import tensorflow as tf
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from tests.trainings import Trainings, assert_same_bits

from experiments.api import data, load, sweep, train
from experiments.errors import ConfigError, DataError, ExperimentError, TrackingError

if TYPE_CHECKING:
    from experiments.runs.results import Result

pytestmark = pytest.mark.slow
SMALL = ("model=mlp", "data=digits", "epochs=2", "logging.log_figures=false", "progress=plain")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(autouse=True)
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


@pytest.fixture(scope="module")
def trained(project: Path) -> Iterator["Result"]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        yield train(*SMALL, *threads())


def threads() -> list[str]:
    """Override for the number of compute threads that an earlier test of this process has set."""
    count = tf.config.threading.get_intra_op_parallelism_threads()
    return [f"runtime.threads={count}"] if count else []


def test_training_equals_that_of_the_command(trained: "Result", trainings: Trainings, tmp_path: Path) -> None:
    command = trainings.run(tmp_path, *SMALL, *threads(), "hydra.run.dir=run")
    assert command.returncode == 0, command.stderr
    assert_same_bits(trained.output_dir / "checkpoints", tmp_path / "run" / "checkpoints")
    assert f"objective      {trained.objective:.4f}" in command.stdout
    log = (trained.output_dir / "train.log").read_text()
    assert "epoch 2/2" in log


def test_process_keeps_handlers_loggers_and_config(trained: "Result") -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert logging.getLogger("experiments").handlers == []
    assert logging.getLogger("experiments").propagate
    own, logger = logging.NullHandler(), logging.getLogger("experiments")
    logger.addHandler(own)
    try:
        with pytest.raises(DataError):
            train("data=npz", "data.path=none.npz")
        assert logger.handlers == [own]
    finally:
        logger.removeHandler(own)
    before = HydraConfig.instance().cfg
    data("digits")
    assert HydraConfig.instance().cfg is before


def test_command_at_the_end_of_a_run_is_executed(project: Path) -> None:
    with pytest.raises(DataError):
        train("data=npz", "data.path=none.npz", "on_end=cp /dev/stdin ended.json")
    assert json.loads((project / "ended.json").read_text())["status"] == "FAILED"


def test_hydra_of_the_user_stays_initialized(project: Path) -> None:
    (project / "users.yaml").write_text("key: value\n")
    with initialize_config_dir(str(project), version_base="1.3"):
        assert data("digits").train.spec.num_classes == 10
        assert compose("users").key == "value"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["epocs=3"], ConfigError, "'epocs' is not a key of this config. Did you mean 'epochs'?"),
        (["model=nope"], ConfigError, "model=nope is not an option. Known: "),
        (["epochs=0"], ConfigError, "epochs=0 is out of range: expected 1 or more. Change epochs."),
        (["-m", "epochs=1,2"], ConfigError, "'-m' is an option of the commands: expected KEY=VALUE. For -m, call swe"),
        (["model=mlp,cnn"], ConfigError, "model=mlp,cnn has several values, but this command starts a single run"),
        (["data=npz", "data.path=none.npz"], DataError, "data.path='none.npz' does not exist"),
        (["resume=unknown"], TrackingError, "resume=unknown is not in sqlite"),
        (["runtime.threads=3"], ConfigError, "runtime.threads=3 comes too late: TensorFlow already runs in this proc"),
        (["runtime.device=gpu"], ConfigError, "runtime.device=gpu, but TensorFlow finds no GPU on this machine."),
    ],
)
def test_errors_are_those_of_the_command(
    trained: "Result", overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        train(*overrides)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


class Interrupt(keras.callbacks.Callback):
    """Interrupts the second epoch once, as the stop button of a notebook does."""

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        mark = Path("interrupted")
        if epoch == 1 and not mark.exists():
            mark.touch()
            raise KeyboardInterrupt


def test_interrupted_training_resumes_to_the_same_bits(trained: "Result") -> None:
    stopped = [*SMALL, *threads(), "checkpoint.every_epoch=true", f"+callbacks.stop._target_={__name__}.Interrupt"]
    with pytest.raises(KeyboardInterrupt):
        train(*stopped)
    resumed = train(*stopped, "resume=last")
    assert len(list(resumed.output_dir.glob("checkpoints/*.index"))) == 2
    assert_same_bits(trained.output_dir / "checkpoints", resumed.output_dir / "checkpoints")


def test_loaded_run_has_model_data_config_and_history(trained: "Result") -> None:
    run = load(trained.run_id)
    loss, accuracy = run.model.evaluate(run.data.validation.epoch(0), verbose=0)
    assert accuracy == pytest.approx(trained.objective, abs=1e-6)
    assert loss == pytest.approx(trained.at_best["val_loss"], abs=1e-5)
    assert run.config.model.hidden_sizes == [128, 64]
    with (trained.output_dir / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        np.testing.assert_allclose(run.history.loc[row.pop("epoch"), list(row)].to_list(), list(row.values()))
    with pytest.raises(TrackingError, match="run_id=unknown is not in"):
        load("unknown")


def test_data_is_that_of_a_training() -> None:
    batches = [list(data("digits", "data.batch_size=8", "seed=3").train.epoch(1).as_numpy_iterator()) for _ in range(2)]
    assert batches[0][0][0].shape == (8, 8, 8, 1)
    for one, other in zip(*batches, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_sweep_returns_row_per_job_and_raises_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = sweep(*SMALL, "optimizer.learning_rate=0.01,0.0001", "progress=none")
    assert jobs["optimizer.learning_rate"].to_list() == [0.01, 0.0001]
    assert jobs["val_accuracy"].is_monotonic_decreasing
    assert load(jobs["run_id"][0]).run_id == jobs["run_id"][0]
    assert "best     #0" in capfd.readouterr().out
    with pytest.raises(ExperimentError, match=r"^'epocs' is not a key of this config\. Did you mean 'epochs'\?$"):
        sweep("epocs=1,2")
    assert sweep(*SMALL, "seed=1,2", "sweep.preview=true").empty
