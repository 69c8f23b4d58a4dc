"""Parts of one's own, from a project outside of the package, through the real commands."""

import ast
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.trainings import Trainings

PROJECT = Path(__file__).parent / "example_project"
README = (Path(__file__).parents[1] / "README.md").read_text()
SOME_PARTS, EVERY_PART = re.findall(r"^\$ python -m experiments\.train (.*--config-dir .*)$", README, re.MULTILINE)
PARTS = {
    "stripes": "data/stripes.yaml",
    "TwoLayers": "model/two_layers.yaml",
    "FocalLoss": "loss/focal.yaml",
    "Confidence": "metrics/confidence.yaml",
    "WatchFirstLayer": "callbacks/watch_first_layer.yaml",
    "small_logits_step": None,  # named by the key loop.train_step
}
MOST_LINES = 20


def serve(project: str, model: str) -> None:
    """Prints why the model cannot be loaded, and what it answers where the project's modules are found."""
    import mlflow.pyfunc
    import numpy as np

    try:
        mlflow.pyfunc.load_model(model)
    except Exception as error:
        print(error)
    sys.path.insert(0, project)
    print(mlflow.pyfunc.load_model(model).predict(np.zeros((3, 16, 16, 1), "uint8")).shape)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since a run writes its results beside the user's own files."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def run(project: Path, trainings: Trainings) -> Run:
    done = trainings.run(project, *shlex.split(EVERY_PART), "epochs=2")
    assert done.returncode == 0, done.stderr
    assert "run id" in done.stdout
    return _client(project).search_runs(["1"])[0]


def _client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


@pytest.mark.slow
def test_every_part_took_part(project: Path, run: Run) -> None:
    assert run.info.status == "FINISHED"
    assert {"val_accuracy", "confidence", "val_confidence", "first_layer/norm"} <= set(run.data.metrics)
    assert run.data.params["loss.gamma"] == "2.0"
    assert run.data.params["loop.train_step"] == "own_parts.small_logits_step"
    assert run.inputs.dataset_inputs[0].dataset.name
    history = _client(project).get_metric_history(run.info.run_id, "first_layer/norm")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.slow
def test_some_parts_train_as_the_readme_says(project: Path, trainings: Trainings) -> None:
    words = [*shlex.split(SOME_PARTS), "epochs=1", "logging=none", "logging.log_model=false"]
    done = trainings.run(project, *words)
    assert done.returncode == 0, done.stderr
    assert "run id" in done.stdout


@pytest.mark.slow
def test_images_of_user_code_reach_the_run(project: Path, run: Run) -> None:
    figures = _client(project).list_artifacts(run.info.run_id, "figures/first_layer")
    assert [Path(figure.path).name for figure in figures] == ["unit_0_1.png", "unit_0_2.png"]
    assert _client(project).list_artifacts(run.info.run_id, "tensorboard/custom")


@pytest.mark.slow
def test_the_model_serves_where_its_module_is_found(project: Path, run: Run, trainings: Trainings) -> None:
    model = _client(project).download_artifacts(run.info.run_id, "model")
    with trainings.calling(serve, str(project), model) as process:
        assert process.wait() == 0, process.stderr
        said = process.stdout
    assert "has classes of the module own_parts, which cannot be imported" in said
    assert said.strip().endswith("(3, 2)")


@pytest.mark.slow
def test_evaluate_finds_own_parts(project: Path, run: Run, trainings: Trainings) -> None:
    done = trainings.run(project, f"run_id={run.info.run_id}", "format=csv", door="evaluate")
    assert "confidence" in done.stdout, done.stderr


@pytest.mark.parametrize("words", [["--config-dir", "conf"], ["hydra.searchpath=[file://conf]"]], ids=str)
def test_both_ways_to_name_the_folder(project: Path, words: list[str], trainings: Trainings) -> None:
    done = trainings.run(project, *words, "experiment=stripes", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "_target_: own_parts.stripes" in done.stdout
    assert "batch_size: 32" in done.stdout  # from the package's shared/batches.yaml


@pytest.mark.parametrize(
    ("words", "message"),
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
def test_mistakes_in_own_options(project: Path, words: list[str], message: str, trainings: Trainings) -> None:
    done = trainings.run(project, "--config-dir", "conf", *words)
    assert (done.returncode, done.stderr.strip()) == (1, f"error: {message}")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_short(part: str) -> None:
    option = PARTS[part]
    yaml = (PROJECT / "conf" / option).read_text().splitlines() if option else []
    schemas = _definitions(PROJECT / "hydra_plugins" / "own_schemas.py")
    lines = len(yaml) + _definitions(PROJECT / "own_parts.py")[part] + schemas.get(part, 0)
    assert lines <= MOST_LINES


def test_each_part_is_in_the_list() -> None:
    options = {path.relative_to(PROJECT / "conf").as_posix() for path in (PROJECT / "conf").rglob("*.yaml")}
    assert options == {*filter(None, PARTS.values()), "experiment/stripes.yaml"}
    assert set(_definitions(PROJECT / "own_parts.py")) == set(PARTS)


def _definitions(path: Path) -> dict[str, int]:
    """Name of each function or class -> its lines of text, decorators and blank lines included."""
    return {
        node.name: (node.end_lineno or 0) - min([node.lineno, *(line.lineno for line in node.decorator_list)]) + 1
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def test_the_readme_shows_the_files_as_they_are() -> None:
    """A code block that names a file of the project in its first line is a part of that file."""
    blocks = re.findall(
        r"```(?:python|yaml)\n# (own_parts\.py|conf/\S+|hydra_plugins/\S+)\n(.*?)```", README, re.DOTALL
    )
    for name, block in blocks:
        assert block in (PROJECT / name).read_text(), name
