"""Types of `data=...`."""

from dataclasses import dataclass
from typing import Any

from experiments.config.fields import Target, at_least, auto_or_at_least, described, fraction, one_of, option, sizes

_PATH = "Folder with the images, or the .npz file of arrays."
_URL = "Address of the file that is downloaded if `data.path` does not exist."
_SHA256 = "SHA-256 digest of the download; another content is refused."


@dataclass
class Batches(Target):
    """Keys of every data set."""

    batch_size: int = at_least(1, "Examples per batch. The last batch of an epoch may be smaller.")
    shuffle: bool = described("Shuffle the training examples in every epoch, as a function of seed and epoch.")
    sampling: str = one_of(
        "shuffled",
        "balanced",
        description="Training examples of an epoch: each one once, or as many draws with equal shares of all classes.",
    )
    class_weight: Any = described(
        "Weights of the training examples in the loss: null, balanced, or {CLASS: WEIGHT} with 1 for other classes."
    )
    num_parallel_calls: int | str = auto_or_at_least(
        1, "Threads that read and decode. The batches are the same for any number."
    )
    prefetch: int | str = auto_or_at_least(0, "Batches prepared in advance. The batches are the same for any number.")
    limit: int | None = at_least(
        1, "Largest number of examples of each split, keeping the share of each class; null for all."
    )
    validation_fraction: float = fraction(
        "Share of the training examples that becomes the validation split if the data has none, which must not be "
        "0 then. A hash of the path in the class folder, or of the position, selects them, so that they stay the same."
    )


@option("image_folder")
class Files(Batches):
    """Images in train/, valid/ and test/ (or similar names) with a folder per class, or only in a folder per class."""

    path: str = described(_PATH)
    image_size: list[int] = sizes(2, "Height and width to which images are resized.")
    channels: int = one_of(1, 3, description="3 for colour, 1 for greyscale.")
    antialias: bool = described("Smooth images before they are made smaller.")
    cache: str = one_of(
        "none",
        "memory",
        "disk",
        description="Where decoded images are kept: nowhere (decode in every epoch), in memory, or in `data.cache_dir` "
        "for later runs too. The batches are the same.",
    )
    cache_dir: str = described(
        "Folder of decoded images, cached features and scan results, which all projects share; `experiments doctor` "
        "shows and prunes it. The environment variable EXPERIMENTS_CACHE sets the default."
    )
    cache_required: bool = described("Stop if the cache cannot be written; false warns and continues without it.")
    on_corrupt: str = one_of(
        "error", "skip", description="Action if images cannot be read: stop before the first epoch, or leave them out."
    )
    allow_leakage: bool = described("Accept the same file, byte for byte, in more than one split.")
    rescan: bool = described("Read every file before training, even if it has not changed since the last scan.")


@option("cats_dogs")
class CatsDogs(Files):
    """The Microsoft cats and dogs images, downloaded if needed."""

    url: str = described(_URL)
    sha256: str = described(_SHA256)


@option("cats_dogs_synthetic")
class CatsDogsSynthetic(Files):
    """Drawn faces of cats and dogs, for trying things out without a download."""

    num_examples: int = at_least(60, "Number of images: 10/12 train, 1/12 validation, 1/12 test.")
    draw_size: int = at_least(16, "Height and width of a drawn image in pixels.")
    draw_seed: int = at_least(0, "Seed of the drawings.")


@option("npz")
class Npz(Batches):
    """Arrays of an .npz file: x_train, y_train and, optionally, x_validation, y_validation, x_test, y_test."""

    path: str = described(_PATH)


@option("mnist")
class Mnist(Npz):
    """MNIST: handwritten digits of 28x28 pixels, downloaded if needed."""

    url: str = described(_URL)
    sha256: str = described(_SHA256)


@option("digits")
class Digits(Batches):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn contains."""

    test_fraction: float = fraction("Share of the examples that becomes the test split.")
