"""Data sets as splits whose batches are addressed by epoch and step."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.data.arrays import from_arrays
    from experiments.data.augment import Augmentation, ColorJitter, CropAndResize, Flip, Rot90, Rotate
    from experiments.data.base import DataSpec, Split, Splits
    from experiments.data.datasets.cats_dogs import cats_dogs
    from experiments.data.datasets.digits import digits
    from experiments.data.datasets.image_folder import image_folder
    from experiments.data.datasets.mnist import mnist
    from experiments.data.datasets.npz import npz
    from experiments.data.datasets.synthetic import cats_dogs_synthetic
    from experiments.data.pipeline import Batching, IndexedSplit, Source, indexed
    from experiments.data.read_errors import named_errors

_HOMES = {
    "experiments.data.arrays": ("from_arrays",),
    "experiments.data.augment": ("Augmentation", "ColorJitter", "CropAndResize", "Flip", "Rot90", "Rotate"),
    "experiments.data.base": ("DataSpec", "Split", "Splits"),
    "experiments.data.datasets.cats_dogs": ("cats_dogs",),
    "experiments.data.datasets.digits": ("digits",),
    "experiments.data.datasets.image_folder": ("image_folder",),
    "experiments.data.datasets.mnist": ("mnist",),
    "experiments.data.datasets.npz": ("npz",),
    "experiments.data.datasets.synthetic": ("cats_dogs_synthetic",),
    "experiments.data.pipeline": ("Batching", "IndexedSplit", "Source", "indexed"),
    "experiments.data.read_errors": ("named_errors",),
}
__all__ = [
    "Augmentation",
    "Batching",
    "ColorJitter",
    "CropAndResize",
    "DataSpec",
    "Flip",
    "IndexedSplit",
    "Rot90",
    "Rotate",
    "Source",
    "Split",
    "Splits",
    "cats_dogs",
    "cats_dogs_synthetic",
    "digits",
    "from_arrays",
    "image_folder",
    "indexed",
    "mnist",
    "named_errors",
    "npz",
]


def __getattr__(name: str) -> Any:
    """Imports names on first use, so that `doctor` can list the cache without importing TensorFlow."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'experiments.data' has no attribute '{name}'")
