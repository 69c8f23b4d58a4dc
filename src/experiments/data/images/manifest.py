"""Scan results of all splits, and the checks of whether training can use them."""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from experiments.data.images.class_folders import files_below
from experiments.data.images.headers import EXTENSIONS, kind_of
from experiments.data.images.scan import Damage, ImageFile, Record, scan
from experiments.data.images.scan_cache import cached_scan
from experiments.data.sampling import stratified_subset
from experiments.errors import DataError, first_few, pluralized

logger = logging.getLogger(__name__)
_OTHER_IMAGES = (b"II*\0", b"MM\0*")  # TIFF


@dataclass(frozen=True)
class Manifest:
    """Readable images and corrupt files of each split, in the order of its files."""

    root: Path
    records: Mapping[str, tuple[Record, ...]]
    damaged: Mapping[str, tuple[Damage, ...]]

    def __len__(self) -> int:
        return sum(map(len, chain(self.records.values(), self.damaged.values())))


def read_manifest(
    root: Path, splits: Mapping[str, Sequence[ImageFile]], memory: Path | None = None, *, rescan: bool = False
) -> Manifest:
    """Reads every file of all `splits` below `root` in one pass.

    memory: file that stores the results for the next scan, which reads unchanged files only with `rescan`; None stores
        nothing.
    """
    files = [file for split in splits.values() for file in split]
    with _no_collection():
        found = iter(scan(root, files) if memory is None else cached_scan(root, files, memory, rescan=rescan))
        by_split = {split: [next(found) for _ in files] for split, files in splits.items()}
    return Manifest(
        root,
        {split: tuple(item for item in items if isinstance(item, Record)) for split, items in by_split.items()},
        {split: tuple(item for item in items if isinstance(item, Damage)) for split, items in by_split.items()},
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disables garbage collection, since a scan creates no reference cycles and each collection visits all objects.

    With TensorFlow loaded, collections took half of the time of a scan of 20,000 unchanged files.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def limited(splits: Mapping[str, Sequence[ImageFile]], limit: int | None) -> dict[str, list[ImageFile]]:
    """Returns at most `limit` files of each split; the classes keep their proportions."""
    return {split: [files[at] for at in stratified_subset(_labels(files), limit)] for split, files in splits.items()}


def check_whole(manifest: Manifest, on_corrupt: str) -> None:
    """Raises DataError naming the first corrupt files if `on_corrupt` is "error", else logs the skipped files."""
    damaged = list(chain.from_iterable(manifest.damaged.values()))
    if not damaged:
        return
    count = pluralized(len(damaged), "image")
    if on_corrupt == "error":
        raise DataError(
            f"{count} of {len(manifest)} below '{manifest.root}' cannot be read: {first_few(map(str, damaged))}. "
            "Remove or replace them, or set data.on_corrupt=skip to leave them out."
        )
    logger.warning(
        "Left out %s of %d below '%s': %s", count, len(manifest), manifest.root, first_few(map(str, damaged))
    )


def check_leakage(manifest: Manifest) -> None:
    """Raises DataError naming two pairs of files if the same content is in two splits."""
    pairs = [f"{first.path} = {other.path}" for first, other in across_splits(manifest.records)]
    if pairs:
        raise DataError(
            f"{pluralized(len(pairs), 'image')} below '{manifest.root}' {'is' if len(pairs) == 1 else 'are'} in more "
            f"than one split, byte for byte: {first_few(pairs, most=2)}. Scores on training images are misleading. "
            "Remove one of each, or set data.allow_leakage=true."
        )


def warn_unused_images(root: Path, used: Mapping[str, Sequence[ImageFile]]) -> None:
    """Logs the files below `root` that are images by content, but are not used because of their extension or folder."""
    taken = {file.path for files in used.values() for file in files}
    others = (path for path in files_below(root, root) if path not in taken)
    overlooked = sorted(path for path in others if _is_image(root / path))
    if overlooked:
        logger.warning(
            "%s below '%s' %s not used, expected files ending in %s in a class folder: %s",
            pluralized(len(overlooked), "image"),
            root,
            "is" if len(overlooked) == 1 else "are",
            ", ".join(EXTENSIONS),
            first_few(overlooked),
        )


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return kind_of(start) is not None or start.startswith(_OTHER_IMAGES) or start[8:12] == b"WEBP"


def across_splits(splits: Mapping[str, Sequence[Record]]) -> Iterator[tuple[Record, Record]]:
    """Yields pairs of the first image with a content and its first copy in another split, one pair per content."""
    seen: dict[str, tuple[str, Record]] = {}
    reported: set[str] = set()
    for split, records in splits.items():
        for record in records:
            first_split, first = seen.setdefault(record.sha256, (split, record))
            if first_split != split and record.sha256 not in reported:
                reported.add(record.sha256)
                yield first, record


def move_duplicates_to_train(manifest: Manifest, limit: int | None) -> Manifest:
    """Moves validation images that are also in `train`, byte for byte, to `train`.

    Needed if a hash of file names made the splits, because copies of an image have different names.
    """
    train, held = manifest.records["train"], manifest.records["validation"]
    trained = {record.sha256 for record in train}
    back = [record for record in held if record.sha256 in trained]
    if not back:
        return manifest
    together = sorted((*train, *back), key=lambda record: (record.label, record.path.split("/")))
    kept = tuple(together[at] for at in stratified_subset(_labels(together), limit))
    rest = tuple(record for record in held if record.sha256 not in trained)
    return replace(manifest, records={**manifest.records, "train": kept, "validation": rest})


def _labels(items: Sequence[ImageFile | Record]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array([item.label for item in items], np.int64)
