"""Saves the model for serving: raw inputs in, probabilities out, as a graph that needs no code of this package."""

import logging
from importlib.metadata import version
from pathlib import Path

import keras
import mlflow
import numpy as np
import tensorflow as tf
from mlflow.models import Model, infer_signature

from experiments.data.base import DataSpec
from experiments.models.outputs import ONE, meaning_of_outputs

PACKAGES = ("tensorflow", "keras", "numpy")
"""Requirements of a saved model, besides MLflow, which adds itself."""


def servable(model: keras.Model, spec: DataSpec, *, from_logits: bool = False) -> keras.Model:
    """Returns `model` with a softmax on logits. Its inputs are raw and have the dtype of the data, uint8 for pixels.

    from_logits: of the loss. One output for each example then gets a sigmoid, and else stays as it is.
    """
    inputs = keras.Input(spec.input_shape, dtype=spec.input_dtype, name="inputs")
    meaning = meaning_of_outputs(model, spec.input_shape, spec.input_dtype)
    activation = "softmax" if meaning == "logits" else "sigmoid" if meaning == ONE and from_logits else "linear"
    last = keras.layers.Activation(activation, dtype="float32", name="probabilities")
    return keras.Model(inputs, last(model(inputs)))


def save_model(model: keras.Model, spec: DataSpec, directory: Path, *, from_logits: bool = False) -> None:
    """Writes an MLflow model folder with the exported graph of `servable` and a signature.

    The folder has the form that `mlflow.keras.save_model(save_exported_model=True)` writes, but contains each weight
    once, no optimizer and no input example: as JSON, images would take more space than the weights of a small network.
    """
    serving = servable(model, spec, from_logits=from_logits)
    inputs = np.zeros((1, *spec.input_shape), spec.input_dtype)
    # Passed to `save_model` instead, a signature without an input example causes a warning.
    packaged = Model(signature=infer_signature(inputs, np.asarray(serving(inputs))))
    packaged.add_flavor(
        "keras",
        data="data",
        keras_version=keras.__version__,
        keras_backend=keras.backend.backend(),
        save_exported_model=True,
    )
    mlflow.pyfunc.save_model(
        str(directory),
        loader_module="mlflow.keras",
        mlflow_model=packaged,
        # Exact versions. MLflow would take many seconds to infer them.
        pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
        metadata={"class_names": list(spec.class_names)},
    )
    _export(serving, spec, directory / "data" / "model")


def _export(serving: keras.Model, spec: DataSpec, folder: Path) -> None:
    """Writes a SavedModel with the function `serve`. Keras's own export would store each weight twice."""
    shape = tf.TensorSpec((None, *spec.input_shape), spec.input_dtype, name="inputs")
    exported = tf.Module()
    exported.weights = [variable.value for variable in serving.variables]
    exported.serve = tf.function(lambda inputs: serving(inputs, training=False), input_signature=[shape])
    exported.__call__ = exported.serve  # makes the object that `mlflow.keras.load_model` returns callable
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)  # without a note on the folder
    try:
        tf.saved_model.save(exported, str(folder), signatures=exported.serve)
    finally:
        logger.setLevel(level)
