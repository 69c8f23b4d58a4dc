"""Pages of a run that `make ui` and `make tensorboard` serve, in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.browser import Browser, checkout, made, needs_browser, serving
from tests.trainings import Trainings

pytestmark = [pytest.mark.slow, needs_browser]


class Shown(NamedTuple):
    """A run and the path of its page. `mlflow` and `board` wait for the two servers and return their addresses."""

    run_id: str
    model_id: str
    page: str
    metrics: dict[str, float]
    mlflow: Callable[[], str]
    board: Callable[[], str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings, empty_store: Path) -> Iterator[Shown]:
    """A run in a process without other trainings, because a profile contains the graphs of all trainings of a process.

    The MLflow UI starts during the training; TensorBoard starts after it, because it searches for profiles only then.
    The folder has the files that `make` expects of a checkout.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("a checkout")
    store = checkout(folder, empty_store)
    overrides = ("data=digits", "data.limit=600", "model=mlp", "debug=profile", "progress=none")
    shown_overrides = (
        "logging.run_name=my digits run",
        "tensorboard.histogram_every_n_epochs=1",
        "logging.system_metrics_interval=1",
    )
    with serving(made("ui"), folder) as mlflow:
        done = trainings.run(folder, *overrides, *shown_overrides, "hydra.run.dir=outputs/first")
        assert done.returncode == 0, done.stderr
        (run,), (model,) = MlflowClient(store).search_runs(["1"]), MlflowClient(store).search_logged_models(["1"])
        with serving(made("tensorboard"), folder) as board:
            page = f"#/experiments/1/runs/{run.info.run_id}"
            yield Shown(run.info.run_id, model.model_id, page, run.data.metrics, mlflow, board)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def mlflow_page(shown: Shown) -> str:
    return f"{shown.mlflow()}/{shown.page}"


@pytest.fixture(scope="module")
def board(shown: Shown) -> str:
    return shown.board()


TRAINING_VIEW = "?workflowType=machine_learning"


def test_run_list_opens_in_model_training_view(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    runs = mlflow_page.rpartition("/")[0] + TRAINING_VIEW
    assert browser.missing(runs, "my digits run", "1 matching run") == []


def test_run_page_shows_params_metrics_data_tags_and_model(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    value = f"{shown.metrics['val_accuracy']:.3f}"[:-1]
    expected = (shown.run_id, "Finished", "optimizer.learning_rate", "0.001", "val_accuracy", value, "digits/train")
    assert browser.missing(mlflow_page + TRAINING_VIEW, *expected, "version.tensorflow", "Logged models", "keras") == []
    assert browser.unseen("FINISHED Best val_accuracy") == []  # without a click on "Show more"


def test_metric_pages_show_epoch_batch_and_system_charts(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    charts = ("Model metrics (15)", "batch (2)", "test_accuracy", "learning_rate")
    assert browser.missing(f"{mlflow_page}/model-metrics{TRAINING_VIEW}", *charts) == []
    assert (
        browser.missing(f"{mlflow_page}/system-metrics{TRAINING_VIEW}", "System metrics (8)", "cpu_utilization_p") == []
    )


def test_images_of_run_have_charts_with_steps(mlflow_page: str, browser: Browser) -> None:
    assert browser.missing(f"{mlflow_page}/model-metrics{TRAINING_VIEW}", "training images", "most wrong") == []
    assert browser.draws_image("timestamp")


def test_models_page_lists_model_and_its_page_shows_linked_metrics(
    shown: Shown, mlflow_page: str, browser: Browser
) -> None:
    models = mlflow_page.rpartition("/runs/")[0] + "/models"
    assert browser.missing(models + TRAINING_VIEW, "Ready", "my digits run") == []
    metrics = ("Metrics (8)", "best_val_accuracy", "test_accuracy", "digits/train", "Register model")
    assert browser.missing(f"{models}/{shown.model_id}{TRAINING_VIEW}", shown.model_id, *metrics) == []
    assert browser.missing(f"{models}/{shown.model_id}/artifacts{TRAINING_VIEW}", "MLmodel", "requirements.txt") == []


def test_artifact_pages_show_files(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    folders = ("checkpoints", "config", "figures", "images", "tensorboard")
    assert browser.missing(f"{mlflow_page}/artifacts{TRAINING_VIEW}", *folders) == []
    assert browser.missing(f"{mlflow_page}/artifacts/config/config.yaml{TRAINING_VIEW}", "val_accuracy") == []
    assert (
        browser.missing(f"{mlflow_page}/artifacts/figures/confusion_matrix.png{TRAINING_VIEW}", "most_wrong.png") == []
    )
    assert browser.draws_image("blob:")


@pytest.mark.parametrize(
    ("tab", "expected"),
    [
        ("scalars", ("epoch_accuracy", "batch_loss", "epoch_learning_rate", "outputs/first/tensorboard/validation")),
        ("images", ("training images",)),
        ("histograms", ("fully_connected/kernel",)),
        ("graphs", ("Main Graph", "batch_10")),
        ("profile", ("Overview Page", "Host Compute Time")),
    ],
)
def test_tensorboard_tab_shows_run(board: str, browser: Browser, tab: str, expected: tuple[str, ...]) -> None:
    assert browser.missing(f"{board}/#{tab}", *expected) == []
    assert "No step marker observed" not in browser.text
    assert "failed" not in browser.text
