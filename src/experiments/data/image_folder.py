"""Folders of images, one folder a class: with a folder a split, or split by the names of the files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from experiments.data.augment import Augmentation
from experiments.data.balance import ClassWeight
from experiments.data.base import Splits
from experiments.data.cache import cached
from experiments.data.class_folders import class_folders
from experiments.data.images import Decoder, FileSource
from experiments.data.partition import spread
from experiments.data.pipeline import Auto, Batching, Source, indexed
from experiments.data.scan import ImageFile, scan
from experiments.errors import DataError


class ImageOptions(TypedDict):
    """What every source of image files takes; `image_folder` says what each means."""

    image_size: Sequence[int]
    channels: int
    antialias: bool
    cache: str
    on_corrupt: str
    validation_fraction: float
    limit: int | None
    batch_size: int
    shuffle: bool
    num_parallel_calls: Auto
    prefetch: Auto
    sampling: str
    class_weight: ClassWeight
    seed: int
    augment: Sequence[Augmentation]


def image_folder(
    path: str,
    *,
    image_size: Sequence[int],
    channels: int,
    antialias: bool,
    cache: str,
    on_corrupt: str,
    validation_fraction: float,
    limit: int | None,
    batch_size: int,
    shuffle: bool,
    num_parallel_calls: Auto,
    prefetch: Auto,
    sampling: str,
    class_weight: ClassWeight,
    seed: int,
    augment: Sequence[Augmentation],
) -> Splits:
    """Splits of JPEG, PNG, BMP and GIF files below the folder `path`.

    path: holds train/, valid/ (or validation/) and perhaps test/ with one folder per class in each, or one folder
        per class; then `validation_fraction` is held out by a hash of the file names.
    image_size: [height, width] in pixels; inputs are uint8 [height, width, channels].
    cache: "none" decodes in every epoch, "memory" once; both give the same bits.
    on_corrupt: "error" or "skip", for files that are not whole images; decided before the first epoch.
    limit: at most so many images of each split, every class keeping its share.
    sampling, class_weight: for classes of unequal size, in training only; see `Batching`.
    Raises DataError when folders or files cannot be trained on.
    """
    root, height_width = Path(path), (image_size[0], image_size[1])
    folders = class_folders(root, validation_fraction)
    decoder = Decoder(height_width, channels, antialias)

    def source(split: str, files: Sequence[ImageFile]) -> Source:
        labels = np.array([file.label for file in files], np.int64)
        chosen = [files[index] for index in spread(labels, limit)]
        records, skipped = scan(root, chosen, on_corrupt)
        if not records:
            raise DataError(f"No image of '{split}' below '{root}' is left. Check data.limit and the files.")
        return cached(FileSource(root, tuple(records), decoder, folders.class_names, tuple(skipped)), cache)

    return indexed(
        source("train", folders.train),
        source("validation", folders.validation),
        None if folders.test is None else source("test", folders.test),
        Batching(batch_size, shuffle, seed, tuple(augment), num_parallel_calls, prefetch, sampling, class_weight),
    )
