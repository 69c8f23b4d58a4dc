"""Epochs over photos at 256 px: ours, cold and warm, beside the tutorial's pipeline and Keras's own loader.

All read the same photos and give float32 batches of 32. `.cache()` in memory is shown too: faster, but always the same
batches, and four bytes a value; and Grain where it is installed, which this project does not need.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import count
from pathlib import Path

import keras
import tensorflow as tf
from measurement import interleaved, show_ratio
from photos import BATCH_SIZE, as_float, ours, photos, tutorial

from experiments.cache_folder import entries

COUNT, SIZE, ROUNDS = 2000, 256, 3


def seconds(batches: Iterable[object]) -> float:
    began = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - began


def warm_sides(root: Path, folder: Path) -> dict[str, Callable[[], float]]:
    """One epoch of each, when what it keeps is kept."""
    split, epochs = ours(root, SIZE, cache="disk", cache_dir=folder / "warm").train, count()
    in_memory = ours(root, SIZE, cache="memory", cache_dir=folder).train
    theirs = keras.utils.image_dataset_from_directory(
        root / "train", image_size=(SIZE, SIZE), batch_size=BATCH_SIZE, verbose=False
    )
    cached = theirs.cache().prefetch(tf.data.AUTOTUNE)
    for prepared in (split.epoch(0), in_memory.epoch(0), cached):
        seconds(prepared)
    return {
        "warm, disk": lambda: seconds(as_float(split.epoch(next(epochs)))),
        "warm, memory": lambda: seconds(as_float(in_memory.epoch(next(epochs)))),
        "tutorial": lambda: seconds(tutorial(root, SIZE)),
        "image_dataset_from_directory": lambda: seconds(theirs),
        "its .cache()": lambda: seconds(cached),
        **grain_side(root),
    }


def grain_side(root: Path) -> dict[str, Callable[[], float]]:
    try:
        grain = import_module("grain")
    except ImportError:
        print("Grain is not installed here and left out.")
        return {}
    import numpy as np
    from PIL import Image

    files = sorted((root / "train").glob("*/*.jpg"))

    def read(path: Path) -> tuple[object, int]:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(resized, np.float32), int(path.parent.name == "dogs")

    dataset = grain.MapDataset.source(files).seed(0).shuffle().map(read).batch(BATCH_SIZE)
    return {"Grain": lambda: seconds(dataset.to_iter_dataset(grain.ReadOptions(num_threads=16)))}


def cold_sides(root: Path, folder: Path) -> dict[str, Callable[[], float]]:
    """From nothing to the end of the first epoch: manifest, decoding and packing; listing and decoding."""

    def cold() -> float:
        cache_dir = Path(tempfile.mkdtemp(dir=folder))
        began = time.perf_counter()
        splits = ours(root, SIZE, cache="disk", cache_dir=cache_dir)
        seconds(as_float(splits.train.epoch(0)))
        taken = time.perf_counter() - began
        while not all(entry.state == "whole" for entry in entries(str(cache_dir))):
            time.sleep(0.05)  # what goes on in the background must not slow down the next side
        shutil.rmtree(cache_dir)
        return taken

    def first_batch() -> float:
        cache_dir = Path(tempfile.mkdtemp(dir=folder))
        began = time.perf_counter()
        next(iter(as_float(ours(root, SIZE, cache="disk", cache_dir=cache_dir).train.epoch(0))))
        return time.perf_counter() - began

    return {
        "cold": cold,
        "tutorial, first": lambda: seconds(tutorial(root, SIZE)),
        "until the first batch": first_batch,
    }


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    # hard links need the photos' own file system, which a temporary folder of the system may not be
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        root = photos(folder, COUNT)
        cold = interleaved(cold_sides(root, folder), ROUNDS)
        warm = interleaved(warm_sides(root, folder), ROUNDS)
    for side, taken in (cold | warm).items():
        print(f"  {side}: {COUNT / taken:,.0f} images/s")
    show_ratio("cold first epoch, images/s over the tutorial's", cold["tutorial, first"] / cold["cold"], 1.0)
    for peer in ("tutorial", "image_dataset_from_directory"):
        show_ratio(f"warm epoch, images/s over {peer}", warm[peer] / warm["warm, disk"], 6.0)


if __name__ == "__main__":
    main()
