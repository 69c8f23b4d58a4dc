"""Data sets as splits whose batches are addressed by epoch and step."""

from experiments.data.arrays import from_arrays
from experiments.data.augment import Augmentation, ColorJitter, CropAndResize, Flip, Rot90, Rotate
from experiments.data.base import DataSpec, Split, Splits
from experiments.data.cats_dogs import cats_dogs
from experiments.data.damage import named_errors
from experiments.data.digits import digits
from experiments.data.image_folder import image_folder
from experiments.data.mnist import mnist
from experiments.data.npz import npz
from experiments.data.pipeline import Batching, IndexedSplit, Source, indexed
from experiments.data.synthetic import cats_dogs_synthetic

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
