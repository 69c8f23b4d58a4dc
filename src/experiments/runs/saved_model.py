"""Saves the model for serving: raw inputs in, probabilities out, loadable by MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import mlflow
import numpy as np
from mlflow.models import Model, infer_signature

from experiments import DISTRIBUTION
from experiments.data.base import DataSpec
from experiments.errors import ModelError
from experiments.models.outputs import meaning_of_outputs


class OwnClass(NamedTuple):
    """A custom class in a saved model. `registered` is its name in Keras's registry, such as 'package>Name'."""

    registered: str
    module: str


def servable(model: keras.Model, spec: DataSpec) -> keras.Model:
    """Returns `model` with a softmax on logits. Its inputs are raw and have the dtype of the data, uint8 for pixels."""
    inputs = keras.Input(spec.input_shape, dtype=spec.input_dtype, name="inputs")
    is_logits = meaning_of_outputs(model, spec.input_shape, spec.input_dtype) == "logits"
    last = keras.layers.Activation("softmax" if is_logits else "linear", dtype="float32", name="probabilities")
    return keras.Model(inputs, last(model(inputs)))


def check_savable(model: keras.Model) -> None:
    """Raises ModelError before training if Keras cannot serialize a class of the model, or not find it when loading."""
    try:
        own = own_classes(model)
    except NotImplementedError as error:
        raise _unsavable(model, "one of its classes lacks get_config()") from error
    for name, _ in own:
        if keras.saving.get_registered_object(name) is None:
            raise _unsavable(model, f"{name} is not registered")


def _unsavable(model: keras.Model, reason: str) -> ModelError:
    return ModelError(
        f"The model {type(model).__name__} cannot be saved: {reason}. Expected classes with get_config(), which "
        "returns the arguments of __init__, decorated with @keras.saving.register_keras_serializable(). Add what is "
        "missing, or set logging.log_model=false."
    )


def own_classes(model: keras.Model) -> list[OwnClass]:
    with uncompiled(model):
        return list(_own_classes(keras.saving.serialize_keras_object(model)))


def _own_classes(config: Any) -> Iterator[OwnClass]:
    if isinstance(config, list | tuple):
        for item in config:
            yield from _own_classes(item)
    elif isinstance(config, dict):
        name, module = config.get("registered_name"), config.get("module") or "__main__"
        if isinstance(name, str) and not module.startswith("keras."):
            yield OwnClass(name, module)
        yield from _own_classes(list(config.values()))


@contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Excludes loss, metrics and optimizer from saving: serving does not need them, and custom ones may not load."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def save_model(model: keras.Model, spec: DataSpec, example: np.ndarray, directory: Path) -> None:
    """Writes an MLflow model folder with signature and input example.

    `example` has shape [n, *input_shape] and the dtype of the data. Requirements are listed here, because MLflow takes
    many seconds to infer them.
    """
    serving = servable(model, spec)
    # MLflow writes the example before it creates the folder.
    directory.mkdir(parents=True)
    with uncompiled(model):
        mlflow.keras.save_model(
            serving,
            str(directory),
            signature=infer_signature(example, np.asarray(serving(example))),
            input_example=example,
            pip_requirements=["tensorflow", "keras", DISTRIBUTION],
            metadata={
                "class_names": list(spec.class_names),
                "modules": sorted({module for _, module in own_classes(serving)}),
            },
        )
    # Keras finds registered classes only after their modules are imported, which MLflow's own loader does not do.
    saved = Model.load(str(directory))
    saved.flavors["python_function"]["loader_module"] = "experiments.serving"
    saved.save(str(directory / "MLmodel"))
