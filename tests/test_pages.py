"""Pages of a run that `make ui` and `make tensorboard` serve, in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from tests.trainings import Trainings

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1600,3000"
)
VISIBLE_TEXT = """
function text(node) {
    if (node.nodeType === Node.TEXT_NODE) return node.textContent;
    if (["STYLE", "SCRIPT", "DOM-MODULE", "TEMPLATE"].includes(node.nodeName)) return "";
    const inside = node.shadowRoot || (node.nodeName === "IFRAME" && node.contentDocument) || node;
    const roots = inside === node ? [node] : [inside, node];
    return roots.map(root => Array.from(root.childNodes).map(text).join(" ")).join(" ");
}
return text(document.body).replace(/\\s+/g, " ")
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs a browser: install chromium and chromium-driver",
    ),
]


class Shown(NamedTuple):
    """A run and the path of its page. `mlflow` and `board` wait for the two servers and return their addresses."""

    run_id: str
    model_id: str
    page: str
    metrics: dict[str, float]
    mlflow: Callable[[], str]
    board: Callable[[], str]


class Browser:
    def __init__(self, profile: Path) -> None:
        self.text = ""
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def missing(self, address: str, *expected: str) -> list[str]:
        """Returns the texts of `expected` that the page at `address` does not show within TIMEOUT_SECONDS."""
        self.driver.get("about:blank")  # a change of only the fragment would not reload the page
        self.driver.get(address)
        until = time.monotonic() + TIMEOUT_SECONDS
        left = list(expected)
        while left and time.monotonic() < until:
            time.sleep(0.1)
            with suppress(WebDriverException):  # a frame that is being replaced
                self.text = str(self.driver.execute_script(VISIBLE_TEXT))
                left = [text for text in expected if text not in self.text]
        return left

    def draws_image(self, part_of_source: str) -> bool:
        script = "return Array.from(document.images).some(i => i.src.includes(arguments[0]) && i.naturalWidth > 300)"
        until = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < until:
            if self.driver.execute_script(script, part_of_source):
                return True
            time.sleep(0.1)
        return False


@contextmanager
def serving(target: str, folder: Path) -> Iterator[Callable[[], str]]:
    """Runs `make target` in `folder`. Yields a function that waits for the server and returns its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["make", target, f"PY={sys.executable}", f"PORT={port}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MLFLOW"))}
    log = (folder / f"{target}.log").open("w")
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield lambda: _answering(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        log.close()


def _answering(address: str, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urlopen(address, timeout=5):
            return address
        time.sleep(0.1)
    raise TimeoutError(f"no server answers at {address}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings, empty_store: Path) -> Iterator[Shown]:
    """A run in a process without other trainings, because a profile contains the graphs of all trainings of a process.

    The MLflow UI starts during the training; TensorBoard starts after it, because it searches for profiles only then.
    The folder has the files that `make` expects of a checkout.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("a checkout")
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-build.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".locked").touch()
    (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    store = f"sqlite:///{shutil.copy(empty_store, folder)}"
    overrides = ("data=digits", "data.limit=600", "model=mlp", "debug=profile", "progress=none")
    shown_overrides = (
        "logging.run_name=my digits run",
        "tensorboard.histogram_every_n_epochs=1",
        "logging.system_metrics_interval=1",
    )
    with serving("ui", folder) as mlflow:
        done = trainings.run(folder, *overrides, *shown_overrides, "hydra.run.dir=outputs/first")
        assert done.returncode == 0, done.stderr
        (run,), (model,) = MlflowClient(store).search_runs(["1"]), MlflowClient(store).search_logged_models(["1"])
        with serving("tensorboard", folder) as board:
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
