"""Scan results of all splits, and the checks of whether training can use them."""

import gc
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from experiments.data.images.headers import EXTENSIONS, kind_of
from experiments.data.images.scan import Damage, ImageFile, Record, scan
from experiments.data.images.scan_cache import cached_scan
from experiments.data.images.walk import HIDDEN, OTHER
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
    """Raises DataError naming corrupt files if `on_corrupt` is "error", else logs them; logs images of 16 bits."""
    deep = [each.path for each in chain(*manifest.records.values()) if each.header.mode.endswith(";16")]
    if deep:
        text = "Only the upper 8 of 16 bits per channel are used in %s: %s. Convert 12-bit images to 8 bits"
        logger.warning(text, pluralized(len(deep), "image"), first_few(str(manifest.root / path) for path in deep))
    damaged = list(chain.from_iterable(manifest.damaged.values()))
    if not damaged:
        return
    total = sum(map(len, chain(manifest.records.values(), manifest.damaged.values())))
    count = f"{pluralized(len(damaged), 'image')} of {total}"
    if on_corrupt == "error":
        raise DataError(
            f"{count} below '{manifest.root}' cannot be read: {first_few(map(str, damaged))}. "
            "Remove or replace them, or set data.on_corrupt=skip to leave them out."
        )
    logger.warning("Left out %s below '%s': %s", count, manifest.root, first_few(map(str, damaged)))


def check_leakage(manifest: Manifest) -> None:
    """Raises DataError naming two pairs of files if the same content is in two splits."""
    pairs = [f"{first.path} = {other.path}" for first, other in across_splits(manifest.records)]
    if pairs:
        raise DataError(
            f"{pluralized(len(pairs), 'image')} below '{manifest.root}' {'is' if len(pairs) == 1 else 'are'} in more "
            f"than one split, byte for byte: {first_few(pairs, most=2)}. Scores on training images are misleading. "
            "Remove one of each, or set data.allow_leakage=true."
        )


def report_left_out(root: Path, left_out: Mapping[str, str]) -> None:
    """Logs by reason what the walk left out, except files that are no images by their first bytes either."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, reason in sorted(left_out.items()):
        if reason != OTHER or _is_image(root / path):
            reasons[reason].append(path)
    if reasons:
        counts = "; ".join(f"{len(paths):,} {reason} ({first_few(paths)})" for reason, paths in reasons.items())
        text = "Left out below '%s': %s. Expected regular files that end in %s"
        level = logging.INFO if reasons.keys() == {HIDDEN} else logging.WARNING
        logger.log(level, text, root, counts, ", ".join(EXTENSIONS))


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return kind_of(start) is not None or start.startswith(_OTHER_IMAGES)


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
