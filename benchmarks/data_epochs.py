"""Time of an epoch over 2,000 photos at 256 px, compared with TensorFlow's tutorial pipeline and Keras's own loader.

    python benchmarks/data_epochs.py

All sides read the same photos and yield float32 batches of 32. A cold epoch decodes the photos and writes the pack; a
warm epoch reads the pack. Two more sides are printed without a bound: `.cache()` in memory, which is faster but repeats
the same batches and needs four bytes per value, and Grain if it is installed (this project does not need it). CPU time
is printed too, because wall-clock time also depends on other processes of the machine.

A cold epoch cannot need less CPU time than the tutorial's pipeline: it needs 3.97 s, the pipeline 3.17 s. Measured by
leaving out one part at a time, writing 393 MB of pages takes 0.44 s, the cast to float 0.23 s, checksums 0.22 s,
rounding 0.17 s, and the check whether files have changed 0.05 s. Only the pipeline copies float images, for 0.31 s.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import count
from pathlib import Path
from statistics import median

import keras
import tensorflow as tf
from measurement import Cost, cost, show_ratio
from photos import BATCH_SIZE, as_float, built, composed, ours, photos, scratch, tutorial

from experiments.data.base import Splits
from experiments.data.cache.listing import entries

COUNT, SIZE, ROUNDS = 2000, 256, 5
FIRST_BATCH = "ours, cold, until the first batch"


Side = Callable[[], Cost]


def epoch(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def warm_sides(root: Path, folder: Path) -> dict[str, Side]:
    """Returns functions that run a warm epoch of each pipeline, after filling their caches."""
    split, epochs = ours(root, SIZE, cache="disk", cache_dir=folder / "warm").train, count()
    in_memory = ours(root, SIZE, cache="memory", cache_dir=folder).train
    theirs = keras.utils.image_dataset_from_directory(
        root / "train", image_size=(SIZE, SIZE), batch_size=BATCH_SIZE, verbose=False
    )
    cached = theirs.cache().prefetch(tf.data.AUTOTUNE)
    for prepared in (split.epoch(0), in_memory.epoch(0), cached):
        epoch(prepared)
    return {
        "warm, disk": lambda: cost(lambda: epoch(as_float(split.epoch(next(epochs))))),
        "warm, memory": lambda: cost(lambda: epoch(as_float(in_memory.epoch(next(epochs))))),
        "tutorial": lambda: cost(lambda: epoch(tutorial(root, SIZE))),
        "image_dataset_from_directory": lambda: cost(lambda: epoch(theirs)),
        "its .cache()": lambda: cost(lambda: epoch(cached)),
        **grain_side(root),
    }


def grain_side(root: Path) -> dict[str, Side]:
    try:
        grain = import_module("grain")
    except ImportError as missing:
        print(f"Grain is not measured: {missing}")
        return {}
    import numpy as np
    from PIL import Image

    files = sorted((root / "train").glob("*/*.jpg"))

    def read(path: Path) -> tuple[object, int]:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(resized, np.float32), int(path.parent.name == "dogs")

    dataset = grain.MapDataset.source(files).seed(0).shuffle().map(read).batch(BATCH_SIZE)
    return {"Grain": lambda: cost(lambda: epoch(dataset.to_iter_dataset(grain.ReadOptions(num_threads=16))))}


def cold_sides(root: Path, folder: Path) -> dict[str, Side]:
    """Returns functions that run a first epoch of each pipeline, of this package with and without its scan of files."""

    def cold(scanned: bool) -> Cost:
        cache_dir = Path(tempfile.mkdtemp(dir=folder))
        cfg = composed(root, SIZE, cache="disk", cache_dir=cache_dir)
        splits: list[Splits] = []
        scan = cost(lambda: splits.append(built(cfg)))
        taken = cost(lambda: epoch(as_float(splits[0].train.epoch(0))))
        while not all(entry.state == "complete" for entry in entries(str(cache_dir))):
            time.sleep(0.05)  # the pack is finished in the background, which must not slow down the next side
        shutil.rmtree(cache_dir)
        return Cost(*map(sum, zip(scan, taken, strict=True))) if scanned else taken

    def first_batch() -> Cost:
        cfg = composed(root, SIZE, cache="disk", cache_dir=Path(tempfile.mkdtemp(dir=folder)))
        return cost(lambda: next(iter(as_float(built(cfg).train.epoch(0)))))

    return {
        "cold": lambda: cold(scanned=False),
        "cold, and its scan": lambda: cold(scanned=True),
        "tutorial, first": lambda: cost(lambda: epoch(tutorial(root, SIZE))),
        FIRST_BATCH: first_batch,
    }


def interleaved(sides: dict[str, Side]) -> dict[str, list[Cost]]:
    """Returns the cost of each round. The sides alternate, so that a busy minute affects all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
    for name, costs in found.items():
        wall, cpu = map(median, zip(*costs, strict=True))
        rate = "" if name == FIRST_BATCH else f": {COUNT / wall:,.0f} images/s"
        print(f"  {name}: {wall:.3g} s, {cpu:.3g} s of CPU time{rate}", flush=True)
    return found


def compare(text: str, ours: list[Cost], theirs: list[Cost], bound: float) -> None:
    """Prints the median ratio of the rounds, by wall-clock time and by CPU time."""
    for kind in Cost._fields:
        ratios = (getattr(their, kind) / getattr(our, kind) for our, their in zip(ours, theirs, strict=True))
        show_ratio(f"{text}, by {'wall-clock time' if kind == 'wall' else 'CPU time'}", median(ratios), bound)


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        root = photos(folder, COUNT)
        cold = interleaved(cold_sides(root, folder))
        warm = interleaved(warm_sides(root, folder))
    for side in ("cold", "cold, and its scan"):
        compare(f"{side}: first epoch, images/s relative to the tutorial's", cold[side], cold["tutorial, first"], 1.0)
    for peer in ("tutorial", "image_dataset_from_directory"):
        compare(f"warm epoch, images/s relative to {peer}", warm["warm, disk"], warm[peer], 6.0)


if __name__ == "__main__":
    main()
