"""The model as others use it: raw inputs in, probabilities out, loadable by MLflow."""

from pathlib import Path

import keras
import mlflow
import numpy as np
from mlflow.models import infer_signature

from experiments.data.base import DataSpec


def servable(model: keras.Model, spec: DataSpec) -> keras.Model:
    """`model` with its softmax on top; takes raw inputs of the data's own type, uint8 for pixels."""
    inputs = keras.Input(spec.input_shape, dtype=spec.input_dtype, name="inputs")
    return keras.Model(inputs, keras.layers.Softmax(dtype="float32", name="probabilities")(model(inputs)))


def save_model(model: keras.Model, spec: DataSpec, example: np.ndarray, directory: Path) -> None:
    """Writes an MLflow model folder with signature and input example.

    example: [n, *input_shape] of the data's type. Requirements are named, as inferring them takes many seconds.
    """
    serving = servable(model, spec)
    # MLflow writes the example before it makes the folder.
    directory.mkdir(parents=True)
    mlflow.keras.save_model(
        serving,
        str(directory),
        signature=infer_signature(example, np.asarray(serving(example))),
        input_example=example,
        pip_requirements=["tensorflow", "keras", "experiments"],
        metadata={"class_names": list(spec.class_names)},
    )
