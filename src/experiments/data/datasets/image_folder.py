"""Data sets of image files with one folder per class, split by folders or by a hash of the paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from experiments.data.base import Splits
from experiments.data.cache.cached_source import cached
from experiments.data.cache.paths import manifest_file
from experiments.data.images.class_folders import class_folders
from experiments.data.images.image_source import Decoder, FileSource
from experiments.data.images.manifest import (
    check_leakage,
    check_whole,
    limited,
    move_duplicates_to_train,
    read_manifest,
    report_left_out,
)
from experiments.data.pipeline import Batching, BatchOptions, Source, SplitOptions, indexed
from experiments.errors import DataError


class ImageOptions(SplitOptions):
    """Keyword arguments of `image_folder`, which data functions that write image files pass on."""

    image_size: Sequence[int]
    channels: int
    antialias: bool
    cache: str
    cache_dir: str
    cache_required: bool
    on_corrupt: str
    allow_leakage: bool
    rescan: bool


def image_folder(
    path: str,
    *,
    image_size: Sequence[int],
    channels: int,
    antialias: bool,
    cache: str,
    cache_dir: str,
    cache_required: bool,
    on_corrupt: str,
    allow_leakage: bool,
    rescan: bool,
    validation_fraction: float,
    limit: int | None,
    **batching: Unpack[BatchOptions],
) -> Splits:
    """Returns splits of the JPEG, PNG, BMP, GIF and WebP files below the folder `path`.

    path: contains train/, valid/ and optionally test/ (or similar names; see `class_folders`) with one folder per class
        in each, or one folder per class; `validation_fraction` is then held out by a hash of the paths.
    image_size: [height, width] in pixels; inputs are uint8 [height, width, channels].
    cache: "none" decodes in every epoch, "memory" and "disk" only in the first one; all give bit for bit identical
        images. Packs on disk, below `cache_dir`, serve later runs too; if `cache_required`, a pack that cannot be
        written is an error.
    on_corrupt: "error" or "skip", for files that are not complete images; applied before the first epoch.
    allow_leakage: allows images that are in two splits, byte for byte. If `path` has no validation folder, all copies
        of an image go to training instead.
    rescan: reads every file, even if its size, times and inode are unchanged since the last scan.
    limit: at most this number of images per split; the classes keep their proportions.
    batching: arguments of `Batching`.
    Raises DataError if folders or files cannot be used for training.
    """
    root, batches = Path(path), Batching(**batching)
    folders = class_folders(root, validation_fraction)
    splits = folders.splits()
    report_left_out(root, folders.left_out)
    manifest = read_manifest(root, limited(splits, limit), manifest_file(cache_dir, root), rescan=rescan)
    check_whole(manifest, on_corrupt)
    if folders.held_out:
        manifest = move_duplicates_to_train(manifest, limit)
    if not allow_leakage:
        check_leakage(manifest)
    decoder = Decoder((image_size[0], image_size[1]), channels, antialias)
    sources: dict[str, Source] = {}
    for split in splits:
        records, damaged = manifest.records[split], manifest.damaged[split]
        if not records:
            raise DataError(f"No image of '{split}' below '{root}' is left. Check data.limit and the files.")
        images = FileSource(root, records, decoder, folders.class_names, damaged, folders.left_out)
        sources[split] = cached(images, images.contents(split), cache, cache_dir, required=cache_required)
    return indexed(sources.get("train", sources["validation"]), sources["validation"], sources.get("test"), batches)
