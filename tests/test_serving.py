"""Saved models: custom classes, size, and loading without this package."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from tests.trainings import Trainings

from experiments.data.base import DataSpec
from experiments.runs.saved_model import save_model

SPEC = DataSpec((4, 4, 1), "uint8", 2, ("lying", "standing"), 3, "0", (2, 1), "made here")
EXAMPLE = Path(__file__).parent / "example_project"
MODULES = "experiments own_parts own_layers"
"""This package, and those of the custom components."""
LOADING = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "experiments":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
for name in sys.argv[1].split():
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
import mlflow
import numpy as np
for expected, model in zip(sys.argv[2::2], sys.argv[3::2]):
    data = np.load(expected)
    graph = mlflow.keras.load_model(model)
    for predict in (graph, graph.serve, mlflow.pyfunc.load_model(model).predict):
        found = predict(data["inputs"])
        np.testing.assert_allclose(np.asarray(found), data["outputs"], rtol=0, atol=1e-6)
        print("equal")
"""


class Unregistered(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


class WithoutConfig(keras.Model):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return self.dense(self.flatten(keras.ops.cast(inputs, "float32")))


def with_custom_layer() -> keras.Model:
    scaled = layers.Rescaling(1 / 255)
    return keras.Sequential(
        [keras.Input((4, 4, 1)), scaled, Unregistered(), layers.Flatten(), layers.Dropout(0.5), layers.Dense(2)]
    )


def saved(make: Callable[[], keras.Model], folder: Path) -> keras.Model:
    """Saves a trained model below `folder`, together with inputs and the probabilities that it returns for them."""
    keras.utils.set_random_seed(0)
    model = make()
    inputs = np.random.default_rng(0).integers(0, 256, (8, *SPEC.input_shape), np.uint8)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, np.zeros(8), verbose=0)
    save_model(model, SPEC, folder / "model")
    logits = np.asarray(model(inputs, training=False))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.savez(folder / "expected.npz", inputs=inputs, outputs=exponentials / exponentials.sum(axis=1, keepdims=True))
    return model


@pytest.mark.slow
def test_saved_models_load_without_this_package(tmp_path: Path) -> None:
    """Custom classes need neither a registration nor a configuration: the saved graph contains their operations."""
    folders = [tmp_path / "layer", tmp_path / "model"]
    for folder, make in zip(folders, (with_custom_layer, lambda: WithoutConfig(2)), strict=True):
        folder.mkdir()
        saved(make, folder)
    paths = [str(folder / name) for folder in folders for name in ("expected.npz", "model")]
    command = [sys.executable, "-c", LOADING, MODULES, *paths]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path).stdout
    assert printed.split() == ["equal"] * 6


def test_saved_model_contains_each_weight_once_and_no_optimizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = saved(with_custom_layer, tmp_path)
    folder = tmp_path / "model"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    described = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    variables = {f"variables/variables.{end}" for end in ("index", "data-00000-of-00001")}
    assert files == described | {f"data/model/{name}" for name in {"fingerprint.pb", "saved_model.pb", *variables}}
    stored = tf.train.list_variables(str(tmp_path / "model" / "data" / "model" / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in stored if name.startswith("weights/")]
    assert sorted(shapes) == sorted(tuple(variable.shape) for variable in model.variables)
    assert [name for name, _ in stored if not name.startswith(("weights/", "_CHECKPOINTABLE"))] == []
    assert capfd.readouterr().out == ""


def test_requirements_are_exact_and_do_not_name_this_package(tmp_path: Path) -> None:
    saved(with_custom_layer, tmp_path)
    lines = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert sorted(line.partition("==")[0] for line in lines) == ["keras", "mlflow", "numpy", "tensorflow"]
    assert all("==" in line for line in lines)


class TrainedRun(NamedTuple):
    """A finished run. `images` are the pixels of files, `probabilities` those that `experiments predict` prints."""

    model: str
    images: np.ndarray
    probabilities: np.ndarray


class Project(NamedTuple):
    """Runs by the names of CASES, and the environment variables of commands that read them."""

    runs: dict[str, TrainedRun]
    environment: dict[str, str]


PHOTOS = ["data=image_folder", "data.path=photos", "data.image_size=[32,32]", "epochs=1", "model.weights=null"]
NETWORK = [*PHOTOS, "model.freeze=false"]
OWN = ["--config-dir", "conf"]
CASES = {
    "mlp": [*PHOTOS, "model=mlp"],
    "cnn": [*PHOTOS, "model=cnn"],
    "mobilenetv2": [*NETWORK, "model=mobilenetv2"],
    "vgg16": [*NETWORK, "model=vgg16"],
    "resnet50": [*NETWORK, "model=resnet50"],
    "efficientnetv2b0": [*NETWORK, "model=efficientnetv2b0"],
    "application": [*NETWORK, "model=application", "model.architecture=MobileNetV3Small"],
    "custom layers": [*OWN, *PHOTOS[:-1], "model=own_layers"],
    "example project": [*OWN, "experiment=stripes", "epochs=1"],
}
OWN_LAYERS = """
import keras

class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[1:], initializer="random_normal")

    def call(self, inputs):
        return keras.ops.cast(inputs, "float32") / 255 * self.scale

def own_layers(input_shape, num_classes):
    last = keras.layers.Dense(num_classes)
    return keras.Sequential([keras.Input(input_shape), Scaled(), keras.layers.Flatten(), last])
"""
START_SECONDS = 300
"""Time limit until a server answers. The first one waits until its environment is installed."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings) -> Iterator[Project]:
    """The example project, with a model of custom layers and photos added, and a run of each case in its store."""
    folder, elsewhere = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "own_layers.py").write_text(OWN_LAYERS)
    (folder / "conf" / "model" / "own_layers.yaml").write_text("_target_: own_layers.own_layers\n")
    _draw(folder / "photos", ("train/one", "train/two", "valid/one", "valid/two"), (32, 32, 3))
    _draw(folder / "stripes", ("",), (16, 16))
    runs = {}
    for name, arguments in CASES.items():
        done = trainings.run(folder, *arguments)
        assert done.returncode == 0, done.stderr
        (run_id,) = re.findall(r"^run id +(\w+)$", done.stdout, re.MULTILINE)
        path = folder / ("stripes" if "experiment=stripes" in arguments else "photos/valid")
        own = OWN if OWN[0] in arguments else []
        predicted = trainings.run(folder, *own, f"run_id={run_id}", f"path={path}", "format=json", door="predict")
        assert predicted.returncode == 0, predicted.stderr
        rows = json.loads(predicted.stdout)
        images = np.stack([np.atleast_3d(np.asarray(Image.open(row["path"]))) for row in rows])
        probabilities = np.array([list(row["probabilities"].values()) for row in rows])
        runs[name] = TrainedRun(f"runs:/{run_id}/model", images, probabilities)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENV_ROOT": str(elsewhere / "environments"),
        "PWD": str(elsewhere),
    }
    yield Project(runs, environment)
    shutil.rmtree(elsewhere)  # the environment is large


def _draw(root: Path, folders: Sequence[str], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(root / folder / f"{number}.png")


def _mlflow(project: Project, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Starts a command of MLflow in a new process group and a folder without modules."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", *arguments, "--env-manager", "uv"],
        cwd=project.environment["PWD"],
        env=project.environment,
        start_new_session=True,
        text=True,
        **options,
    )


def _printed(project: Project, command: Sequence[str]) -> str:
    folder, environment = project.environment["PWD"], project.environment
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment).stdout


@contextmanager
def _served(project: Project, model: str, port: int) -> Iterator[str]:
    """Serves a model until the end of the block. Yields its address once the server answers."""
    address, log = f"http://127.0.0.1:{port}", Path(project.environment["PWD"], f"{port}.log")
    arguments = ("serve", "-m", model, "-p", str(port))
    with log.open("w") as file, _mlflow(project, *arguments, stdout=file, stderr=file) as server:
        try:
            until = time.monotonic() + START_SECONDS
            while not _answers(f"{address}/ping"):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_mlflow_serves_runs_in_an_environment_of_the_requirements(
    project: Project, case: str, unused_port: int
) -> None:
    """All models have the same requirements, and therefore share one environment."""
    run = project.runs[case]
    body = json.dumps({"inputs": run.images.tolist()}).encode()
    with _served(project, run.model, unused_port) as address:
        request = Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    np.testing.assert_allclose(found, run.probabilities, rtol=0, atol=1e-6)
    (python,) = Path(project.environment["MLFLOW_ENV_ROOT"]).glob("*/bin/python")
    code = "import importlib.util as u, sys; print([u.find_spec(name) for name in sys.argv[1:]])"
    assert _printed(project, [str(python), "-c", code, *MODULES.split()]) == "[None, None, None]\n"


@pytest.mark.long
@pytest.mark.parametrize("case", ["mlp", "cnn", "mobilenetv2", "custom layers", "example project"])
def test_mlflow_predicts_in_an_environment_of_the_requirements(project: Project, case: str, tmp_path: Path) -> None:
    run, inputs, outputs = project.runs[case], tmp_path / "inputs.json", tmp_path / "outputs.json"
    inputs.write_text(json.dumps({"inputs": run.images.tolist()}))
    with _mlflow(project, "predict", "-m", run.model, "-i", str(inputs), "-o", str(outputs)) as command:
        assert command.wait(START_SECONDS) == 0
    np.testing.assert_allclose(json.loads(outputs.read_text())["predictions"], run.probabilities, rtol=0, atol=1e-6)


@pytest.mark.long
def test_models_of_runs_load_without_this_package_and_custom_modules(project: Project, tmp_path: Path) -> None:
    arguments = []
    for name, run in project.runs.items():
        np.savez(tmp_path / f"{name}.npz", inputs=run.images, outputs=run.probabilities)
        arguments += [str(tmp_path / f"{name}.npz"), run.model]
    printed = _printed(project, [sys.executable, "-c", LOADING, MODULES, *arguments])
    assert printed.split() == ["equal"] * 3 * len(CASES)
