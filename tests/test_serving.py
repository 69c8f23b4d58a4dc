"""Saved models: custom classes, size, and loading without this package."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from experiments.data.base import DataSpec
from experiments.models.applications import application
from experiments.models.cnn import cnn
from experiments.models.mlp import mlp
from experiments.runs.saved_model import save_model

SPEC = DataSpec((4, 4, 1), "uint8", 2, ("lying", "standing"), 3, "0", (2, 1), "made here")
LOADING = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "experiments":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import mlflow
import numpy as np
for folder in sys.argv[1:]:
    data = np.load(f"{folder}/expected.npz")
    graph = mlflow.keras.load_model(f"{folder}/model")
    for found in (graph.serve(data["inputs"]), mlflow.pyfunc.load_model(f"{folder}/model").predict(data["inputs"])):
        np.testing.assert_allclose(np.asarray(found), data["outputs"], atol=1e-6)
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


def saved(make: Callable[[], keras.Model], folder: Path, shape: tuple[int, int, int] = (4, 4, 1)) -> keras.Model:
    """Saves a trained model below `folder`, together with inputs and the probabilities that it returns for them."""
    keras.utils.set_random_seed(0)
    model = make()
    inputs = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, np.zeros(8), verbose=0)
    save_model(model, replace(SPEC, input_shape=shape), inputs[:2], folder / "model")
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
    command = [sys.executable, "-c", LOADING, *map(str, folders)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert printed.split() == ["equal"] * 4


def test_saved_model_contains_each_weight_once_and_no_optimizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = saved(with_custom_layer, tmp_path)
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


@pytest.mark.long
@pytest.mark.parametrize("name", ["mlp", "cnn", "mobilenetv2", "custom"])
def test_mlflow_predicts_in_an_environment_of_the_requirements(tmp_path: Path, name: str) -> None:
    """The environment, which uv builds and caches, contains the requirements of the model only."""
    arguments: dict[str, Any] = {"input_shape": (32, 32, 3), "num_classes": 2, "dropout": 0.0}
    make: dict[str, Callable[[], keras.Model]] = {
        "mlp": lambda: mlp(hidden_sizes=[8], **arguments),
        "cnn": lambda: cnn(filters=[4, 8], batch_norm_momentum=0.9, l2=0.0, **arguments),
        "mobilenetv2": lambda: application("MobileNetV2", None, False, 0.0, False, None, (32, 32, 3), 2, alpha=0.35),
        "custom": lambda: WithoutConfig(2),
    }
    saved(make[name], tmp_path, (32, 32, 3))
    expected = np.load(tmp_path / "expected.npz")
    (tmp_path / "inputs.json").write_text(json.dumps({"inputs": expected["inputs"].tolist()}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "uv"]
    command += ["-m", str(tmp_path / "model"), "-i", str(tmp_path / "inputs.json"), "-o", str(tmp_path / "out.json")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path, "PYTHONPATH": ""})
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    np.testing.assert_allclose(found, expected["outputs"], atol=1e-6)
