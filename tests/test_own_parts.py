"""Custom components of a project outside the package, used through the commands."""

import ast
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.docs.blocks import IN_PROJECT
from tests.trainings import Trainings

PROJECT = Path(__file__).parent / "example_project"
SOME_COMPONENTS, ALL_COMPONENTS, TRAIN_STEP = (
    command.arguments for command in IN_PROJECT if command.block.page == "docs/guides/custom-components.md"
)
"""Arguments of the commands of the guide, in their order."""
COMPONENTS = {
    "stripes": "data/stripes.yaml",
    "TwoLayers": "model/two_layers.yaml",
    "FocalLoss": "loss/focal.yaml",
    "Confidence": "metrics/confidence.yaml",
    "WatchFirstLayer": "callbacks/watch_first_layer.yaml",
    "small_logits_step": None,  # named by the key loop.train_step instead of an option
}
MOST_LINES = 20


def serve(model: str) -> None:
    """Prints the shape of the predictions of a saved model in a process that has not imported the project."""
    import mlflow.pyfunc
    import numpy as np

    print(mlflow.pyfunc.load_model(model).predict(np.zeros((3, 16, 16, 1), "uint8")).shape)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example project, because runs write their results into it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def run(project: Path, trainings: Trainings) -> Run:
    done = trainings.run(project, *ALL_COMPONENTS, "epochs=2")
    assert done.returncode == 0, done.stderr
    assert "run id" in done.stdout
    return _client(project).search_runs(["1"])[0]


def _client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


@pytest.mark.slow
def test_run_uses_each_component(project: Path, run: Run) -> None:
    assert run.info.status == "FINISHED"
    assert {"val_accuracy", "confidence", "val_confidence", "first_layer/norm"} <= set(run.data.metrics)
    assert run.data.params["loss.gamma"] == "2.0"
    assert run.data.params["loop.train_step"] == "own_parts.small_logits_step"
    assert run.inputs.dataset_inputs[0].dataset.name
    history = _client(project).get_metric_history(run.info.run_id, "first_layer/norm")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [SOME_COMPONENTS, TRAIN_STEP], ids=" ".join)
def test_command_of_the_guide_trains(project: Path, arguments: list[str], trainings: Trainings) -> None:
    fast = ["epochs=1", "logging=none", "logging.log_model=false"]
    done = trainings.run(project, *arguments, *fast)
    assert done.returncode == 0, done.stderr
    assert "run id" in done.stdout


@pytest.mark.slow
def test_images_of_user_code_are_recorded(project: Path, run: Run) -> None:
    images = [Path(image.path).name for image in _client(project).list_artifacts(run.info.run_id, "images")]
    assert [name for name in images if name.startswith("first_layer~unit_0") and name.endswith(".png")] == [
        "first_layer~unit_0+step+1+timestamp+0+0.png",
        "first_layer~unit_0+step+2+timestamp+0+0.png",
    ]
    assert _client(project).list_artifacts(run.info.run_id, "tensorboard/custom")


@pytest.mark.slow
def test_saved_model_loads_without_its_module(
    project: Path, run: Run, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _client(project).tracking_uri)
    model = _client(project).download_artifacts(run.info.run_id, "model")
    with trainings.calling(serve, model) as process:
        assert process.wait() == 0, process.stderr
        printed = process.stdout
    assert printed.strip().endswith("(3, 2)")


@pytest.mark.slow
def test_evaluate_finds_custom_components(project: Path, run: Run, trainings: Trainings) -> None:
    done = trainings.run(project, f"run_id={run.info.run_id}", "format=csv", door="evaluate")
    assert "confidence" in done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [["--config-dir", "conf"], ["hydra.searchpath=[file://conf]"]], ids=str)
def test_config_folder_is_found(project: Path, arguments: list[str], trainings: Trainings) -> None:
    done = trainings.run(project, *arguments, "experiment=stripes", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "_target_: own_parts.stripes" in done.stdout
    assert "batch_size: 32" in done.stdout  # of shared/batches.yaml in the package


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss=focal", "loss.gama=3"], "'loss.gama' is not a key of this config. Did you mean 'loss.gamma'?"),
        (["loss=focal", "loss.gamma=x"], "loss.gamma=x: expected a number, received 'x'. Change loss.gamma."),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma=-1.0 is out of range: expected 0 or more. Change loss.gamma."),
        (["model=two_layers", "model.unit=3"], "'model.unit' is not a key of this config. Did you mean 'model.units'?"),
        (["loss=focul"], "loss=focul is not an option. Did you mean 'focal'?"),
        (["metrics=[confidense]"], "metrics=confidense is not an option. Did you mean 'confidence'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_in_a_custom_option_is_one_line(
    project: Path, arguments: list[str], message: str, trainings: Trainings
) -> None:
    done = trainings.run(project, "--config-dir", "conf", *arguments)
    assert (done.returncode, done.stderr.strip()) == (1, f"error: {message}")


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_is_short(component: str) -> None:
    option = COMPONENTS[component]
    yaml = (PROJECT / "conf" / option).read_text().splitlines() if option else []
    schemas = _definitions(PROJECT / "hydra_plugins" / "own_schemas.py")
    lines = len(yaml) + _definitions(PROJECT / "own_parts.py")[component] + schemas.get(component, 0)
    assert lines <= MOST_LINES


def test_each_component_is_listed() -> None:
    options = {path.relative_to(PROJECT / "conf").as_posix() for path in (PROJECT / "conf").rglob("*.yaml")}
    assert options == {*filter(None, COMPONENTS.values()), "experiment/stripes.yaml"}
    assert set(_definitions(PROJECT / "own_parts.py")) == set(COMPONENTS)


def _definitions(path: Path) -> dict[str, int]:
    """Returns function or class -> number of its lines, including decorators and blank lines."""
    return {
        node.name: (node.end_lineno or 0) - min([node.lineno, *(line.lineno for line in node.decorator_list)]) + 1
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
