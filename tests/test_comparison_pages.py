"""Pages of MLflow and TensorBoard on which the runs of a sweep are compared, in a real browser.

    SCREENSHOTS=FOLDER make test-long ARGS="--basetemp=/tmp/project tests/test_comparison_pages.py"

writes pictures of the pages to the folder, which must exist; docs/images contains four of them. Only visible text
counts: text that the page cuts off or hides does not. The panel of MLflow's assistant is closed, as it is after a user
has closed it once.
"""

import csv
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from many_runs import insert_runs
from mlflow import MlflowClient
from mlflow.entities import Run
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from tests.browser import Browser, checkout, made, needs_browser, serving
from tests.trainings import Trainings

pytestmark = [pytest.mark.slow, pytest.mark.long, needs_browser]
BEST = "best_val_accuracy"
MODELS = ("mlp", "small_mlp", "cnn")
COMMON = ("data=digits", "data.limit=600", "epochs=2", "progress=none")
SWEPT = (f"model={','.join(MODELS)}", "optimizer.learning_rate=0.01,3")
TRAINING_VIEW = "?workflowType=machine_learning"
MANY = 10_000
MOST_CLICKS = (4, 0, 4, 3, 4, 2)
CLOSE_ASSISTANT = "localStorage.clear(); localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
EDGE = """
return Array.from(document.querySelectorAll(".ag-header-cell")).find(each => each.innerText.trim() === arguments[0])
    ?.querySelector(".ag-header-cell-resize")
"""
CHECKBOX = """
const name = Array.from(document.querySelectorAll(".ag-row a")).find(each => each.innerText.trim() === arguments[0]);
return name?.closest(".ag-row").querySelector(".ag-selection-checkbox input")
"""
AXES = """
const label = Array.from(document.querySelectorAll("div")).find(each => each.innerText === "Parameters:");
const chosen = label?.nextElementSibling.querySelectorAll(".du-bois-light-select-selection-item-content");
return Array.from(chosen ?? []).map(each => each.innerText)
"""
SCROLL = """
for (const each of document.querySelectorAll("*"))
    if (each.scrollHeight > each.clientHeight && each.clientHeight < 900) each.scrollTop = arguments[0];
"""
SELECTION = "return document.querySelectorAll('.du-bois-light-select-selector')[arguments[0]]"
CHARTS = "return document.querySelector('input[value=CHART]')?.closest('label')"


class Compared(NamedTuple):
    """A sweep of six jobs, the best one first, in a store that has another experiment with MANY runs."""

    folder: Path
    client: MlflowClient
    parent: Run
    jobs: list[Run]
    many: str
    mlflow: str
    board: str

    @property
    def names(self) -> list[str]:
        return [str(job.info.run_name) for job in self.jobs]

    def page(self, path: str) -> str:
        return f"{self.mlflow}/#/experiments/{path}{TRAINING_VIEW}"

    def differing(self, *jobs: Run) -> set[str]:
        """Names of the params that not all of the jobs have with the same value."""
        keys = {key for job in jobs for key in job.data.params}
        return {key for key in keys if len({job.data.params.get(key) for job in jobs}) > 1}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings, empty_store: Path) -> Iterator[Compared]:
    folder = tmp_path_factory.mktemp("a checkout")
    store = checkout(folder, empty_store)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "small_mlp.yaml").write_text("defaults: [mlp]\nhidden_sizes: [16]\n")
    done = trainings.run(folder, "-m", "--config-dir=conf", *COMMON, *SWEPT, "hydra.sweep.dir=multirun/first")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(store)
    (parent,) = client.search_runs(["1"], "metrics.best > 0")
    jobs = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    jobs.sort(key=lambda job: -job.data.metrics[BEST])
    many = client.get_experiment_by_name(insert_runs(folder / "mlflow.db", MANY)).experiment_id
    board = [sys.executable, "-m", "tensorboard.main", "--logdir=multirun/first/tensorboard", "--port={port}"]
    with serving(made("ui"), folder) as mlflow, serving(board, folder) as tensorboard:
        yield Compared(folder, client, parent, jobs, many, mlflow(), tensorboard())


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(opened: Browser, compared: Compared) -> Browser:
    """A browser without settings of earlier tests, on the page of the runs, whose address `make ui` prints."""
    opened.open(compared.mlflow)
    opened.driver.execute_script(CLOSE_ASSISTANT)
    opened.driver.set_window_size(1600, 2000)
    opened.open(compared.page("1/runs"))
    assert opened.unseen("7 matching runs") == []
    opened.clicks = 0
    return opened


def picture(browser: Browser, name: str, width: int = 1400, height: int = 900) -> None:
    """Writes the page to the folder SCREENSHOTS, if it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        size = browser.driver.get_window_size()
        browser.driver.set_window_size(width, height)
        browser.driver.execute_async_script("setTimeout(arguments[0], 2000)")  # tables and charts adapt to the size
        browser.driver.save_screenshot(str(Path(folder, f"{name}.png")))
        browser.driver.set_window_size(size["width"], size["height"])


def sort_by_best(browser: Browser, first: str) -> None:
    browser.click("Sort: Created")
    browser.click(BEST)
    assert browser.until(lambda: " ".join(column(browser)).startswith(first)), browser.lines()


def widen(browser: Browser, header: str) -> None:
    """Double-clicks on the edge of a column header, which fits the column to its texts."""
    browser.click_on(lambda: browser.element(EDGE, header), header, times=2)


def select(browser: Browser, *names: str) -> None:
    for name in names:
        browser.click_on(lambda name=name: browser.element(CHECKBOX, name), name)  # type: ignore[misc]


def column(browser: Browser) -> list[str]:
    """Names of runs in the table, from the top."""
    return [text for line in browser.lines() for text in line if re.fullmatch(r"#\d+ .*|run-\d+", text)]


def row(browser: Browser, start: str) -> list[str]:
    """Texts of a row of the table, beginning with `start`."""
    return next((line[line.index(start) :] for line in browser.lines() if start in line), [])


def number(text: str) -> float:
    return float(text.rstrip("…"))


def test_run_table_shows_names_columns_and_order(compared: Compared, browser: Browser) -> None:
    sort_by_best(browser, compared.names[0][:12])
    widen(browser, "Run Name")
    assert column(browser) == compared.names
    browser.click("Columns")
    for name in ("Dataset", "Source", "Models", "model", "optimizer.learning_rate"):
        browser.click(name)
    browser.click("Columns")
    for header in (BEST, "optimizer.learning_rate"):
        widen(browser, header)
    for job in compared.jobs:
        assert browser.until(lambda job=job: len(row(browser, job.info.run_name)) == 6)  # type: ignore[misc]
        *_, value, model, rate = row(browser, str(job.info.run_name))
        assert number(value) == pytest.approx(job.data.metrics[BEST], abs=1e-6)
        assert [model, rate] == [job.data.params["model"], job.data.params["optimizer.learning_rate"]]
    picture(browser, "runs", 1400, 640)


def test_run_table_groups_by_model(compared: Compared, browser: Browser) -> None:
    sort_by_best(browser, compared.names[0][:12])
    browser.click("Group by")
    browser.click("model")
    widen(browser, "Run Name")
    groups = [f"Group: {model}" for model in MODELS]
    assert browser.unseen("Group by: model", *groups) == []
    texts = [text for line in browser.lines() for text in line if text.startswith(("Group: ", "#"))]
    for model in MODELS:
        start = texts.index(f"Group: {model}") + 1
        expected = {job.info.run_name for job in compared.jobs if job.data.params["model"] == model}
        assert {*texts[start : start + 2]} == expected
        assert row(browser, f"Group: {model}")[1] == "2"
    picture(browser, "grouped")


def test_charts_show_best_metric_of_all_jobs(compared: Compared, browser: Browser) -> None:
    sort_by_best(browser, compared.names[0][:12])
    browser.click_on(lambda: browser.element(CHARTS), "charts")
    assert (
        browser.unseen("Model metrics (16)", BEST, f"{compared.names[0]} (best_v", f"{compared.names[1]} (best_v") == []
    )
    picture(browser, "charts", 1600, 1400)


def test_comparison_page_shows_swept_keys_and_only_differences(compared: Compared, browser: Browser) -> None:
    sort_by_best(browser, compared.names[0][:12])
    select(browser, *compared.names)
    browser.click("Compare")
    assert browser.unseen("Comparing 6 Runs from 1 Experiment", "Parallel Coordinates Plot") == []
    assert axes(browser) == sorted(compared.differing(*compared.jobs))[:3]
    assert axes(browser)[0] == "model"
    browser.click("Show diff only", 0)
    differing = compared.differing(*compared.jobs)
    assert {"model", "optimizer.learning_rate"} <= differing
    assert browser.until(lambda: shows_params(browser, compared, differing))
    browser.click("Clear All")
    for place, names in enumerate((("model", "optimizer.learning_rate"), (BEST,))):
        browser.click_on(lambda place=place: browser.element(SELECTION, place), "axes")  # type: ignore[misc]
        for name in names:
            ActionChains(browser.driver).send_keys(name).pause(0.5).send_keys(Keys.ENTER).perform()
        ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    assert axes(browser) == ["model", "optimizer.learning_rate"]
    picture(browser, "comparison", 1500, 960)
    # Models with the same keys: the swept keys and the key by which the models differ are the axes.
    same = [job.info.run_id for job in compared.jobs if job.data.params["model"] != "cnn"]
    browser.open(f'{compared.mlflow}/#/compare-runs?runs={json.dumps(same)}&experiments=["1"]')
    assert browser.unseen("Comparing 4 Runs from 1 Experiment", "Parallel Coordinates Plot") == []
    assert axes(browser) == ["model", "model.hidden_sizes", "optimizer.learning_rate"]


def shows_params(browser: Browser, compared: Compared, expected: set[str]) -> bool:
    known = {key for job in compared.jobs for key in job.data.params}
    return parameters(browser) & known == expected


def axes(browser: Browser) -> list[str]:
    """Params that the plot of the comparison page shows, which is the selection above it."""
    return list(browser.driver.execute_script(AXES))


def parameters(browser: Browser) -> set[str]:
    """Names of the params in the table of the comparison page, which is scrolled to its end."""
    found = set()
    for position in (0, 10_000):
        browser.driver.execute_script(SCROLL, position)
        lines = browser.lines()
        start, end = ([name in line for line in lines].index(True) for name in ("Parameters", "Metrics"))
        found |= {text.rstrip("…") for line in lines[start + 2 : end] for text in line}
    return found


def test_run_page_shows_result_images_and_model(compared: Compared, browser: Browser) -> None:
    best = compared.jobs[0]
    browser.open(compared.page(f"1/runs/{best.info.run_id}"))
    value = f"{best.data.metrics[BEST]:.4g}"
    assert browser.unseen(f"FINISHED Best val_accuracy {value} in epoch", "Logged models (1)", "Ready") == []
    browser.click("Show more")
    assert browser.unseen("Data sklearn.datasets.load_digits : 600 train", "optimizer.learning_rate=0.01") == []
    picture(browser, "run", 1400, 690)
    browser.driver.set_window_size(1600, 3200)  # images are loaded when they come into view
    browser.click("Model metrics")
    assert browser.unseen(BEST) == []
    assert browser.draws_image("timestamp")


def test_parent_page_links_to_best_job(compared: Compared, browser: Browser) -> None:
    browser.open(compared.page(f"1/runs/{compared.parent.info.run_id}"))
    value = f"{compared.jobs[0].data.metrics[BEST]:.4g}"
    assert browser.unseen("FINISHED Best job", f"val_accuracy {value}", *compared.names) == []
    picture(browser, "sweep")


def test_models_page_shows_metrics_of_each_job(compared: Compared, browser: Browser) -> None:
    order = [{"field_name": f"metrics.{BEST}", "ascending": False}]
    ranked = [model.source_run_id for model in compared.client.search_logged_models(["1"], order_by=order)]
    assert ranked[:3] == [job.info.run_id for job in compared.jobs[:3]]
    browser.driver.set_window_size(3600, 900)
    browser.open(compared.page("1/models"))
    starts = [name[:15] for name in compared.names]  # the page cuts the names off
    assert browser.unseen(BEST, *starts) == []
    for job, start in zip(compared.jobs, starts, strict=True):
        texts = next(line for line in browser.lines() if any(text.startswith(start) for text in line))
        numbers = [number(text) for text in texts if re.fullmatch(r"\d+\.\d+…?", text)]
        assert min(abs(each - job.data.metrics[BEST]) for each in numbers) < 1e-6
    picture(browser, "models", 2600, 600)


def test_table_of_many_runs_opens_and_sorts(compared: Compared, browser: Browser) -> None:
    browser.open(compared.page(f"{compared.many}/runs"))
    assert browser.unseen(f"run-{MANY - 1}", f"run-{MANY - 20}") == []
    expected = compared.client.search_runs([compared.many], order_by=[f"metrics.{BEST} DESC"], max_results=20)
    sort_by_best(browser, str(expected[0].info.run_name))
    assert column(browser)[:20] == [run.info.run_name for run in expected]
    picture(browser, "many")


@pytest.mark.parametrize("tab", ["scalars", "images", "hparams"])
def test_tensorboard_of_sweep_shows_all_jobs(compared: Compared, browser: Browser, tab: str) -> None:
    expected = {"scalars": ("epoch_accuracy", BEST), "images": ("training images",), "hparams": ("model", BEST)}
    browser.driver.set_window_size(2000, 1400)
    assert browser.missing(f"{compared.board}/#{tab}", *compared.names, *expected[tab]) == []
    picture(browser, f"tensorboard_{tab}", 1900, 640)


def test_six_questions_are_answered_by_visible_text(
    compared: Compared, browser: Browser, trainings: Trainings, tmp_path: Path
) -> None:
    """Asks in this order, each time from the page on which the previous answer was found."""
    clicks: dict[str, int] = {}

    def asked(question: str) -> None:
        clicks[question], browser.clicks = browser.clicks, 0

    best, second = compared.jobs[:2]
    sort_by_best(browser, compared.names[0][:12])
    widen(browser, "Run Name")
    assert column(browser)[0] == best.info.run_name
    asked("which run is best")

    values = [number(row(browser, name)[-1]) for name in column(browser)[:2]]
    assert values[0] - values[1] == pytest.approx(best.data.metrics[BEST] - second.data.metrics[BEST], abs=1e-6)
    asked("by how much")

    select(browser, *column(browser)[:2])
    browser.click("Compare")
    browser.click("Show diff only", 0)
    assert browser.until(lambda: shows_params(browser, compared, compared.differing(best, second)))
    asked("what differs between the first and the second")

    browser.driver.back()
    browser.clicks += 1
    assert browser.until(lambda: best.info.run_name in column(browser))
    browser.click("Group by")
    browser.click("optimizer.learning_rate")
    assert browser.unseen("Group: 0.01", "Group: 3.0") == []
    for rate in ("0.01", "3.0"):
        found = [job.data.metrics[BEST] for job in compared.jobs if job.data.params["optimizer.learning_rate"] == rate]
        mean = next(text for text in row(browser, f"Group: {rate}") if text.startswith("0."))
        assert number(mean) == pytest.approx(sum(found) / len(found), abs=1e-5)
    asked("which learning rate was bad")

    browser.click(str(best.info.run_name))
    for name in ("Artifacts", "figures", "predictions.csv"):
        browser.click(name)
    browser.driver.set_window_size(1600, 20_000)
    assert browser.unseen("validation[0]") == []
    path = compared.client.download_artifacts(best.info.run_id, "figures/predictions.csv", str(tmp_path))
    with Path(path).open(newline="") as file:
        wrong = {line["example"] for line in csv.DictReader(file) if line["true_class"] != line["predicted_class"]}
    rows = [line[-4:] for line in browser.lines() if len(line) >= 4 and line[-4].startswith("validation[")]
    assert {example for example, true, predicted, _ in rows if true != predicted} == wrong
    asked("which examples did it get wrong")

    browser.click("Overview")
    browser.click("Show more")
    assert browser.unseen("optimizer.learning_rate=0.01") == []
    (command,) = (text for line in browser.lines() for text in line if text.startswith("experiments train"))
    _, _, directory, *words = shlex.split(command.replace("\\\n", ""))
    assert (directory, set(words)) == (
        f"--config-dir={compared.folder}/conf",
        {*COMMON, "model=cnn", "optimizer.learning_rate=0.01"},
    )
    asked("how do I run it again")

    (tmp_path / "again").mkdir()
    done = trainings.run(tmp_path / "again", directory, *words)
    assert done.returncode == 0, done.stderr
    (again,) = MlflowClient(f"sqlite:///{tmp_path}/again/mlflow.db").search_runs(["1"])
    assert again.data.metrics[BEST] == best.data.metrics[BEST]
    print(f"clicks: {clicks}")
    assert all(count <= most for count, most in zip(clicks.values(), MOST_CLICKS, strict=True)), clicks
