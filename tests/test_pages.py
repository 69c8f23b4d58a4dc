"""What a person sees of a run: the pages of `make ui` and `make tensorboard` in a real browser."""

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
PATIENCE = 120
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
    """A run, its page, and the two servers that show it in a folder which make takes for a checkout."""

    run_id: str
    page: str
    metrics: dict[str, float]
    mlflow: Callable[[], str]
    board: Callable[[], str]


class Browser:
    def __init__(self, profile: Path) -> None:
        self.said = ""
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def missing(self, address: str, *expected: str) -> list[str]:
        """What of `expected` the page at `address` does not say, after some patience."""
        self.driver.get("about:blank")  # a changed fragment alone would not load the page anew
        self.driver.get(address)
        until = time.monotonic() + PATIENCE
        left = list(expected)
        while left and time.monotonic() < until:
            time.sleep(0.1)
            with suppress(WebDriverException):  # a frame that is being replaced
                self.said = str(self.driver.execute_script(VISIBLE_TEXT))
                left = [words for words in expected if words not in self.said]
        return left

    def draws_image(self, part_of_source: str) -> bool:
        script = "return Array.from(document.images).some(i => i.src.includes(arguments[0]) && i.naturalWidth > 300)"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.driver.execute_script(script, part_of_source):
                return True
            time.sleep(0.1)
        return False


@contextmanager
def serving(target: str, folder: Path) -> Iterator[Callable[[], str]]:
    """Starts what `make target` serves in `folder`; yields what waits for its first answer and returns its address."""
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
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urlopen(address, timeout=5):
            return address
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {address}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings, empty_store: Path) -> Iterator[Shown]:
    """A run of a fork that trains nothing else: a profile holds the graphs of all that its process has trained.

    MLflow's page starts during the training, TensorBoard after it, as it looks for profiles when it starts.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("a checkout")
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-build.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".locked").touch()
    (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    store = f"sqlite:///{shutil.copy(empty_store, folder)}"
    words = ("data=digits", "data.limit=600", "model=mlp", "debug=profile", "progress=none")
    own = (
        "logging.run_name=digits of a person",
        "tensorboard.histogram_every_n_epochs=1",
        "logging.system_metrics_interval=1",
    )
    with serving("ui", folder) as mlflow:
        done = trainings.run(folder, *words, *own, "hydra.run.dir=outputs/first")
        assert done.returncode == 0, done.stderr
        (run,) = MlflowClient(store).search_runs(["1"])
        with serving("tensorboard", folder) as board:
            yield Shown(run.info.run_id, f"#/experiments/1/runs/{run.info.run_id}", run.data.metrics, mlflow, board)


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


KIND = "?workflowType=machine_learning"


def test_the_list_of_runs_opens_for_model_training(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    runs = mlflow_page.rpartition("/")[0] + KIND
    assert browser.missing(runs, "digits of a person", "1 matching run") == []


def test_a_run_shows_parameters_metrics_data_tags_and_model(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    value = f"{shown.metrics['val_accuracy']:.3f}"[:-1]
    words = (shown.run_id, "Finished", "optimizer.learning_rate", "0.001", "val_accuracy", value, "digits/train")
    assert browser.missing(mlflow_page + KIND, *words, "version.tensorflow", "Logged models", "keras") == []


def test_metrics_are_drawn_per_epoch_per_batch_and_of_the_machine(
    shown: Shown, mlflow_page: str, browser: Browser
) -> None:
    charts = ("Model metrics (7)", "batch (2)", "test_accuracy", "learning_rate")
    assert browser.missing(f"{mlflow_page}/model-metrics{KIND}", *charts) == []
    assert browser.missing(f"{mlflow_page}/system-metrics{KIND}", "System metrics (8)", "cpu_utilization_p") == []


def test_artifacts_open_in_the_page(shown: Shown, mlflow_page: str, browser: Browser) -> None:
    folders = ("checkpoints", "config", "figures", "model", "tensorboard")
    assert (
        browser.missing(f"{mlflow_page}/artifacts/model{KIND}", *folders, "Model schema", "uint8, shape: [-1,8,8,1]")
        == []
    )
    assert browser.missing(f"{mlflow_page}/artifacts/config/config.yaml{KIND}", "val_accuracy") == []
    assert browser.missing(f"{mlflow_page}/artifacts/figures/confusion_matrix.png{KIND}", "most_wrong.png") == []
    assert browser.draws_image("blob:")


@pytest.mark.parametrize(
    ("tab", "words"),
    [
        ("scalars", ("epoch_accuracy", "batch_loss", "epoch_learning_rate", "outputs/first/tensorboard/validation")),
        ("images", ("training images",)),
        ("histograms", ("fully_connected/kernel",)),
        ("graphs", ("Main Graph", "batch_10")),
        ("profile", ("Overview Page", "Host Compute Time")),
    ],
)
def test_tensorboard_shows_the_run(board: str, browser: Browser, tab: str, words: tuple[str, ...]) -> None:
    assert browser.missing(f"{board}/#{tab}", *words) == []
    assert "No step marker observed" not in browser.said
    assert "failed" not in browser.said
