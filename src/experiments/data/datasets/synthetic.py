"""Cats and dogs that the project draws itself: real JPEG files, so the whole path of photos is exercised offline."""

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
    """What the files of a data set depend on; `version` changes with the way faces are drawn."""

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
    """Splits of drawn faces below `path`, as `image_folder` makes them: ten twelfths train, one validation, one test.

    They are drawn when `path` does not exist or was drawn from other numbers: `num_examples` in all, `draw_size`
    pixels high and wide, each a function of `draw_seed` and its number.
    Raises DataError when `path` holds anything else.
    """
    root, drawing = Path(path), Drawing(num_examples, draw_size, draw_seed)
    if not is_drawn(root, drawing):  # looked at first, so that a folder that is ready may be read-only
        with exclusive(root):
            ensure_drawn(root, drawing)
    return image_folder(path, **options)


def is_drawn(root: Path, drawing: Drawing) -> bool:
    """Whether `root` holds exactly `drawing`."""
    record = root / _RECORD
    return record.exists() and bool(json.loads(record.read_text()) == asdict(drawing))


def ensure_drawn(root: Path, drawing: Drawing) -> None:
    """Draws into `root` unless it already holds `drawing`."""
    if root.exists() and not (root / _RECORD).exists():
        raise DataError(
            f"data.path='{root}' exists and was not drawn by data=cats_dogs_synthetic, so it is left alone. Set "
            "data.path to a folder of its own, or use data=image_folder for your own images."
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
