"""Experiment orchestration for TensorFlow and Keras."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.data import Splits, from_arrays
    from experiments.loops import FitLoop, Position, TapeLoop
    from experiments.runs.recording import log_image, log_scalar

DISTRIBUTION = "keras-experiments"
"""Name of the installed distribution; the package index has another project named `experiments`."""
_HOMES = {
    "experiments.data": ("Splits", "from_arrays"),
    "experiments.loops": ("FitLoop", "Position", "TapeLoop"),
    "experiments.runs.recording": ("log_image", "log_scalar"),
}
__all__ = ["FitLoop", "Position", "Splits", "TapeLoop", "from_arrays", "log_image", "log_scalar"]


def __getattr__(name: str) -> Any:
    """Imports an export on first use, so that commands that only read the config start quickly."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'experiments' has no attribute '{name}'")
