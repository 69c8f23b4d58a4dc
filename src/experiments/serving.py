"""How `mlflow.pyfunc.load_model` loads a saved `model/`; needs this package, and the modules of one's own classes."""

from importlib import import_module
from typing import Any

import mlflow.keras
from mlflow.models import Model

from experiments.errors import ModelError


def _load_pyfunc(path: str) -> Any:
    """The entry that MLflow asks of a loader module; path: the model's folder."""
    for module in Model.load(path).metadata["modules"]:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ModelError(
                f"The model in {path} has classes of the module {module}, which cannot be imported ({error}). "
                "Run from the folder that holds it, add that folder to PYTHONPATH, or install it."
            ) from error
    return mlflow.keras._load_pyfunc(path)
