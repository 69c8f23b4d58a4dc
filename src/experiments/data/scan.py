"""One pass over image files before a run: what they are, and which are not whole."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments.data.integrity import Header, UnreadableImageError, read_header
from experiments.data.progress import progress
from experiments.errors import DataError

logger = logging.getLogger(__name__)
_READERS = 8  # a slow disk or a network folder gains from several, a warm one does not mind


@dataclass(frozen=True)
class ImageFile:
    """One image of a class folder; `path` is relative to the data set's folder, with forward slashes."""

    path: str
    label: int


@dataclass(frozen=True)
class Record:
    """A whole image, as it was when it was scanned."""

    path: str
    label: int
    num_bytes: int
    sha256: str
    header: Header


@dataclass(frozen=True)
class Damage:
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


def scan(root: Path, files: Sequence[ImageFile], on_corrupt: str) -> tuple[list[Record], list[Damage]]:
    """Reads every file once, in parallel; order is kept.

    Returns the records of whole images, and those left out when `on_corrupt` is "skip".
    Raises DataError naming the first damaged files when it is "error".
    """
    with ThreadPoolExecutor(_READERS) as readers, progress("Scanning images", len(files)) as advance:
        found: list[Record | Damage] = []
        for result in readers.map(lambda file: _examine(root, file), files):
            found.append(result)
            advance(1)
    damaged = [item for item in found if isinstance(item, Damage)]
    if damaged and on_corrupt == "error":
        raise DataError(
            f"{_count(damaged)} of {len(files)} below '{root}' cannot be read: {named(map(str, damaged))}. "
            "Remove or replace them, or set data.on_corrupt=skip to leave them out."
        )
    if damaged:
        logger.warning("Left out %s of %d below '%s': %s", _count(damaged), len(files), root, named(map(str, damaged)))
    return [item for item in found if isinstance(item, Record)], damaged


def named(names: Iterable[str], most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def _examine(root: Path, file: ImageFile) -> Record | Damage:
    try:
        content = (root / file.path).read_bytes()
        header = read_header(content)
    except OSError as error:
        return Damage(file.path, error.strerror or type(error).__name__)
    except UnreadableImageError as error:
        return Damage(file.path, str(error))
    digest = hashlib.sha256(content).hexdigest()
    return Record(file.path, file.label, len(content), digest, header)


def _count(damaged: Sequence[Damage]) -> str:
    return "1 image" if len(damaged) == 1 else f"{len(damaged)} images"
