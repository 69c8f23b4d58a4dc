"""Experiment orchestration for TensorFlow and Keras."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.data import Splits, from_arrays
    from experiments.loops import FitLoop, Position, TapeLoop
    from experiments.runs.recording import log_image, log_scalar

_HOMES = {
    "FitLoop": "experiments.loops",
    "Position": "experiments.loops",
    "Splits": "experiments.data",
    "TapeLoop": "experiments.loops",
    "from_arrays": "experiments.data",
    "log_image": "experiments.runs.recording",
    "log_scalar": "experiments.runs.recording",
}
__all__ = ["FitLoop", "Position", "Splits", "TapeLoop", "from_arrays", "log_image", "log_scalar"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that commands which only read config stay light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'experiments' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
