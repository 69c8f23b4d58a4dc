"""Data sets as splits whose batches are addressed by epoch and step."""

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
