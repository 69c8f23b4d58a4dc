"""Requirements of custom models for saving and serving."""

from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from keras import layers

from experiments.data.base import DataSpec
from experiments.errors import ModelError
from experiments.runs.saved_model import check_savable, save_model

SPEC = DataSpec((4, 4, 1), "uint8", 2, ("lying", "standing"), 3, "0", (2, 1), "made here")


class Unregistered(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs


@keras.saving.register_keras_serializable(package="test_serving")
class Registered(Unregistered):
    pass


@keras.saving.register_keras_serializable(package="test_serving")
class WithoutConfig(keras.Model):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


class LossWithoutConfig(keras.losses.Loss):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.weight * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def _model(layer: layers.Layer) -> keras.Model:
    scaled = layers.Rescaling(1 / 255)
    model = keras.Sequential([keras.Input((4, 4, 1)), scaled, layer, layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", LossWithoutConfig(2.0))
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: WithoutConfig(2), "one of its classes lacks get_config()"),
        (lambda: _model(Unregistered()), "Unregistered is not registered"),
    ],
)
def test_model_that_cannot_be_saved_is_refused(model: Any, reason: str) -> None:
    built = model()
    with pytest.raises(ModelError) as error:
        check_savable(built)
    assert str(error.value) == (
        f"The model {type(built).__name__} cannot be saved: {reason}. Expected classes with get_config(), which "
        "returns the arguments of __init__, decorated with @keras.saving.register_keras_serializable(). "
        "Add what is missing, or set logging.log_model=false."
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(0)
    model = _model(Registered())
    check_savable(model)
    save_model(model, SPEC, np.zeros((2, 4, 4, 1), np.uint8), tmp_path / "model")
    assert model.compiled
    return tmp_path / "model"


def test_custom_loss_needs_no_config_for_serving(folder: Path) -> None:
    probabilities = mlflow.pyfunc.load_model(str(folder)).predict(np.zeros((3, 4, 4, 1), np.uint8))
    assert probabilities.shape == (3, 2)
    assert np.allclose(probabilities.sum(axis=1), 1.0)


def test_missing_module_is_named(folder: Path) -> None:
    metadata = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(metadata.replace(f"- {__name__}\n", "- not_here\n"))
    with pytest.raises(ModelError, match=r"has classes of the module not_here, which cannot be imported .*PYTHONPATH"):
        mlflow.pyfunc.load_model(str(folder))
