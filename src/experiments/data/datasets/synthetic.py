"""Drawn cats and dogs in JPEG files, which use the complete photo pipeline without a download."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from experiments.cli.progress_bar import progress
from experiments.data.base import Splits
from experiments.data.datasets.faces import KINDS, draw_face
from experiments.data.datasets.image_folder import ImageOptions, image_folder
from experiments.errors import DataError
from experiments.files import exclusive, new_folder

_QUALITY = 90
_RECORD = "drawing.json"
_HELD_OUT = 12  # one twelfth for validation, one for test


@dataclass(frozen=True)
class Drawing:
    """Parameters that determine the drawn files; `version` changes when faces are drawn differently."""

    num_examples: int
    size: int
    draw_seed: int
    version: int = 1

    def split_sizes(self) -> dict[str, int]:
        held_out = self.num_examples // _HELD_OUT
        return {"train": self.num_examples - 2 * held_out, "valid": held_out, "test": held_out}


def cats_dogs_synthetic(
    path: str, *, num_examples: int, draw_size: int, draw_seed: int, **options: Unpack[ImageOptions]
) -> Splits:
    """Returns splits of drawn faces below `path`, made by `image_folder`: 10/12 train, 1/12 validation, 1/12 test.

    The faces are drawn if `path` does not exist or was drawn with other parameters: `num_examples` in total,
    `draw_size` pixels high and wide, each determined by `draw_seed` and its number.
    Raises DataError if `path` contains anything else.
    """
    root, drawing = Path(path), Drawing(num_examples, draw_size, draw_seed)
    if not is_drawn(root, drawing):  # checked without the lock, so that a finished folder may be read-only
        with exclusive(root):
            ensure_drawn(root, drawing)
    return image_folder(path, **options)


def is_drawn(root: Path, drawing: Drawing) -> bool:
    """Returns True if `root` contains exactly `drawing`."""
    record = root / _RECORD
    return record.exists() and bool(json.loads(record.read_text()) == asdict(drawing))


def ensure_drawn(root: Path, drawing: Drawing) -> None:
    """Draws into `root` unless it already contains `drawing`; raises DataError if it contains anything else."""
    if root.exists() and not (root / _RECORD).exists():
        raise DataError(
            f"data.path='{root}' exists and was not drawn by data=cats_dogs_synthetic, so it is not overwritten. Set "
            "data.path to another folder, or use data=image_folder for your own images."
        )
    if is_drawn(root, drawing):
        return
    with new_folder(root) as folder:
        _draw(folder, drawing)
        (folder / _RECORD).write_text(json.dumps(asdict(drawing)))


def _draw(folder: Path, drawing: Drawing) -> None:
    places = [(split, index) for split, count in drawing.split_sizes().items() for index in range(count)]
    for split in drawing.split_sizes():
        for kind in KINDS:
            (folder / split / kind).mkdir(parents=True)

    def draw(number: int) -> None:
        split, index = places[number]
        kind = KINDS[index % len(KINDS)]
        face = draw_face(kind, drawing.size, np.random.default_rng([drawing.draw_seed, number]))
        face.save(folder / split / kind / f"{kind[:-1]}.{number:05}.jpg", quality=_QUALITY)

    with ThreadPoolExecutor() as artists, progress("Drawing cats and dogs", len(places)) as advance:
        for _ in artists.map(draw, range(len(places))):
            advance(1)
