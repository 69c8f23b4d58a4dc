"""The evaluate command on finished runs, from end to end."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import DictConfig
from PIL import Image

pytestmark = pytest.mark.slow

Door = Callable[..., str]


class FinishedRun(NamedTuple):
    run_id: str
    store: str
    photos: Path


@pytest.fixture
def evaluate(door: Door, finished_run: FinishedRun) -> Callable[..., dict[str, object]]:
    """Returns a function that evaluates with overrides and returns the printed row."""

    def call(*overrides: str) -> dict[str, object]:
        (row,) = json.loads(door("evaluate", f"logging.tracking_uri={finished_run.store}", "format=json", *overrides))
        assert isinstance(row, dict)
        return row

    return call


@pytest.fixture
def refusal(door: Door, finished_run: FinishedRun) -> Callable[..., str]:
    """Returns a function that evaluates with overrides and returns the error message."""

    def call(*overrides: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            door("evaluate", f"logging.tracking_uri={finished_run.store}", *overrides)
        return str(exit_info.value)

    return call


def test_default_is_newest_run_on_its_validation_split(
    evaluate: Callable[..., dict[str, object]], finished_run: FinishedRun
) -> None:
    row = evaluate()
    assert list(row) == ["run_id", "checkpoint", "split", "examples", "loss", "accuracy"]
    assert row["examples"] == 12
    assert row["run_id"] == finished_run.run_id
    assert row["split"] == "validation"
    assert row["accuracy"] == 1.0


def test_newest_run_excludes_runs_without_training(
    evaluate: Callable[..., dict[str, object]], finished_run: FinishedRun
) -> None:
    """Covers finished runs that are parent runs of sweeps, or that other programs have created."""
    from mlflow import MlflowClient

    client = MlflowClient(finished_run.store)
    other = client.create_run("1", tags={"sweep": "0123456789ab"})
    client.set_terminated(other.info.run_id)
    try:
        assert evaluate()["run_id"] == finished_run.run_id
    finally:
        client.delete_run(other.info.run_id)


def test_best_checkpoint_has_logged_accuracy(
    evaluate: Callable[..., dict[str, object]], finished_run: FinishedRun
) -> None:
    from mlflow import MlflowClient

    history = MlflowClient(finished_run.store).get_metric_history(finished_run.run_id, "val_accuracy")
    row = evaluate(f"run_id={finished_run.run_id}", "checkpoint=best")
    assert row["accuracy"] == pytest.approx(max(metric.value for metric in history))


@pytest.mark.parametrize("checkpoint", ["best", "latest"])
def test_run_with_schedule_is_evaluated(door: Door, scheduled: FinishedRun, checkpoint: str) -> None:
    """The optimizer of such a run has other variables than the one with which evaluation compiles."""
    from mlflow import MlflowClient

    store, run_id = f"logging.tracking_uri={scheduled.store}", scheduled.run_id
    (row,) = json.loads(door("evaluate", store, f"run_id={run_id}", f"checkpoint={checkpoint}", "format=json"))
    logged = MlflowClient(scheduled.store).get_run(run_id).data.metrics
    assert row["loss"] == pytest.approx(logged["val_loss"], rel=1e-5)


@pytest.fixture(scope="module")
def scheduled(
    tmp_path_factory: pytest.TempPathFactory, composed: Callable[..., DictConfig], empty_store: Path
) -> FinishedRun:
    from experiments.runs.run import run

    folder = tmp_path_factory.mktemp("scheduled")
    store = f"sqlite:///{shutil.copy(empty_store, folder)}"
    overrides = ["data=digits", "data.limit=100", "model=mlp", "epochs=1", "schedule=cosine", "progress=none"]
    cfg = composed(*overrides, "logging.log_model=false", "logging.log_figures=false", f"logging.tracking_uri={store}")
    run_id = run(cfg, folder / "output").run_id
    assert run_id is not None
    return FinishedRun(run_id, store, folder)


def test_latest_is_checkpoint_with_highest_step(evaluate: Callable[..., dict[str, object]]) -> None:
    latest, numbered = evaluate("checkpoint=latest"), evaluate("checkpoint=40")
    assert latest["loss"] == numbered["loss"]
    assert evaluate("checkpoint=30")["loss"] != numbered["loss"]


def test_other_split_and_other_data_are_evaluated(
    evaluate: Callable[..., dict[str, object]], finished_run: FinishedRun, tmp_path: Path
) -> None:
    assert evaluate("split=train")["accuracy"] == 1.0
    for split in ("train", "valid", "test"):
        for number, colour in enumerate(("blue", "green", "red")):
            (tmp_path / "swapped" / split / colour).mkdir(parents=True)
            source = finished_run.photos / "valid" / ("red", "blue", "green")[number]
            for file in source.iterdir():
                Image.open(file).resize((50, 40)).save(tmp_path / "swapped" / split / colour / file.name)
    overrides = [f"data.path={tmp_path / 'swapped'}", "data.allow_leakage=true"]
    row = evaluate("data=image_folder", *overrides, "split=test")
    assert row["split"] == "test"
    assert row["accuracy"] == 0.0


def test_table_and_csv_have_same_values(door: Door, finished_run: FinishedRun) -> None:
    store = f"logging.tracking_uri={finished_run.store}"
    (row,) = csv.DictReader(io.StringIO(door("evaluate", store, "format=csv")))
    table = door("evaluate", store)
    assert row["run_id"] == finished_run.run_id
    assert float(row["accuracy"]) == 1.0
    assert finished_run.run_id in table
    assert f"{float(row['loss']):.4f}" in table
    assert list(Path.cwd().iterdir()) == []


def test_unknown_run_is_refused(refusal: Callable[..., str], finished_run: FinishedRun) -> None:
    assert refusal("run_id=0123") == (
        f"error: run_id=0123 is not in {finished_run.store}: Run with id=0123 not found. Set run_id to the id "
        "of a run in that store, as MLflow's page shows it, or logging.tracking_uri to the run's store."
    )


def test_experiment_without_finished_run_is_refused(refusal: Callable[..., str], finished_run: FinishedRun) -> None:
    assert refusal("logging.experiment_name=nothing") == (
        f"error: logging.experiment_name=nothing has no finished run in {finished_run.store}. Train one with "
        "experiments train, or name run_id=ID or another store by logging.tracking_uri."
    )


def test_missing_store_is_refused_and_not_created(door: Door, finished_run: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no file 'mlflow\.db'"):
        door("evaluate", "logging.tracking_uri=sqlite:///mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_unknown_checkpoint_names_existing_ones(refusal: Callable[..., str], finished_run: FinishedRun) -> None:
    assert refusal("checkpoint=7") == (
        f"error: checkpoint=7 is not a checkpoint of run {finished_run.run_id}: expected one of 30, 35, 40, latest, "
        "best. Choose one of these."
    )


def test_corrupt_best_weights_are_refused(
    refusal: Callable[..., str],
    evaluate: Callable[..., dict[str, object]],
    finished_run: FinishedRun,
    damaged_best: str,
) -> None:
    assert refusal("checkpoint=best") == (
        f"error: checkpoint=best of run {finished_run.run_id} is corrupt: {damaged_best} has changed since it was "
        "written. Expected the files as they were written. Choose another one, such as checkpoint=latest."
    )
    assert evaluate("checkpoint=latest")["accuracy"] == 1.0


def test_missing_split_names_existing_ones(refusal: Callable[..., str]) -> None:
    assert refusal("split=test") == (
        "error: split=test does not exist in this data. Set split=validation or split=train."
    )


def test_data_with_other_classes_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("data=digits") == (
        "error: The data has inputs [8, 8, 1] of uint8 in the range 0..255 and the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, "
        "9, but the run was trained on inputs [16, 16, 3] of uint8 in the range 0..255 and the classes blue, green, "
        "red. Expected the same inputs and no other classes. Change the data (pixels to uint8), or set run_id to "
        "another run."
    )


def test_unknown_format_names_supported_ones(refusal: Callable[..., str]) -> None:
    assert refusal("format=xml") == (
        "error: format=xml is out of range: expected one of table, csv, json. Change format."
    )


def test_logging_none_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("logging=none", "logging.tracking_uri=null") == (
        "error: logging=none keeps no runs to read. Set logging=mlflow."
    )
