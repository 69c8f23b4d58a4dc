"""Loads saved models for `mlflow.pyfunc`. Saved models contain the names of this module and of custom modules."""

from importlib import import_module
from typing import Any

import mlflow.keras
from mlflow.models import Model

from experiments.errors import ModelError


def _load_pyfunc(path: str) -> Any:
    """Loads the model in the folder `path`. MLflow requires this function of a loader module."""
    for module in Model.load(path).metadata["modules"]:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ModelError(
                f"The model in {path} has classes of the module {module}, which cannot be imported ({error}). "
                "Run from the folder that contains it, add that folder to PYTHONPATH, or install it."
            ) from error
    return mlflow.keras._load_pyfunc(path)
