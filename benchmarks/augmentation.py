"""Time per image of each augmentation, compared with decoding the image and with Keras's most similar layer.

    python benchmarks/augmentation.py --photos FOLDER --image-size 256

FOLDER contains JPEG files. The blocks run in turn and their medians are compared, because step times drift on a shared
machine.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from experiments.data import Augmentation, ColorJitter, CropAndResize, Flip, Rot90, Rotate
from experiments.data.augment import augmented
from experiments.data.images.image_source import Decoder

Block = Callable[[], object]
AUGMENTATIONS: dict[str, list[Augmentation]] = {
    "flip": [Flip(horizontal=True, vertical=False)],
    "rot90": [Rot90()],
    "rotate": [Rotate(15)],
    "crop_and_resize": [CropAndResize(0.7)],
    "color_jitter": [ColorJitter(0.1, 0.2)],
    "standard": [Flip(horizontal=True, vertical=False), CropAndResize(0.7), ColorJitter(0.1, 0.2)],
}


def peers() -> dict[str, list[keras.layers.Layer]]:
    """Returns Keras's most similar layers for each augmentation that has any."""
    flip, zoom = keras.layers.RandomFlip("horizontal"), keras.layers.RandomZoom((-0.3, 0.0))
    jitter = [keras.layers.RandomBrightness(0.1), keras.layers.RandomContrast(0.2, value_range=(0, 255))]
    return {
        "flip": [flip],
        "rotate": [keras.layers.RandomRotation(15 / 360)],
        "crop_and_resize": [zoom],
        "color_jitter": jitter,
        "standard": [flip, zoom, *jitter],
    }


def main() -> None:
    arguments = _arguments()
    files = sorted(arguments.photos.rglob("*.jpg"))[: arguments.batch_size]
    decoder = Decoder((arguments.image_size, arguments.image_size), 3, antialias=False)
    images = tf.stack([decoder.read(tf.constant(str(file)), tf.constant(1)) for file in files])
    blocks = {"decode": _decoding(files, decoder)}
    blocks |= {name: _ours(images, chosen) for name, chosen in AUGMENTATIONS.items()}
    blocks |= {f"Keras {name}": _theirs(images, layers) for name, layers in peers().items()}
    _show(timed(blocks, arguments.rounds), len(files), arguments.image_size)


def timed(blocks: dict[str, Block], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each block. All run in turn, `rounds` times after a round that traces them."""
    found: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(rounds + 1):
        for name, block in blocks.items():
            begun = time.perf_counter()
            block()
            found[name].append(time.perf_counter() - begun)
    return {name: median(times[1:]) for name, times in found.items()}


def _decoding(files: Sequence[Path], decoder: Decoder) -> Block:
    """Returns a block that decodes the files in parallel, as a training does."""
    paths = [str(file) for file in files]
    read = tf.autograph.experimental.do_not_convert(lambda path: decoder.read(path, tf.constant(1)))
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(len(paths))
    return lambda: next(iter(dataset))


def _ours(images: tf.Tensor, augmentations: Sequence[Augmentation]) -> Block:
    draws = sum(augmentation.draws for augmentation in augmentations)
    u = tf.constant(np.random.default_rng(0).random((len(images), draws), np.float32))
    step = tf.function(lambda x, u: augmented(x, u, augmentations), autograph=False)
    return lambda: step(images, u)


def _theirs(images: tf.Tensor, layers: Sequence[keras.layers.Layer]) -> Block:
    pixels = tf.cast(images, tf.float32)

    def apply(x: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            x = layer(x, training=True)
        return x

    step = tf.function(apply, autograph=False)
    return lambda: step(pixels)


def _show(seconds: dict[str, float], count: int, size: int) -> None:
    table = Table("augmentation", "us per image", "ratio to decoding", "ratio to Keras's layer")
    for name in AUGMENTATIONS:
        peer = seconds.get(f"Keras {name}")
        table.add_row(
            name,
            f"{1e6 * seconds[name] / count:.0f}",
            f"{seconds[name] / seconds['decode']:.2f}",
            "-" if peer is None else f"{seconds[name] / peer:.2f}",
        )
    console = Console(width=100)
    console.print(f"{count} photos at {size} px; decoding takes {1e6 * seconds['decode'] / count:.0f} us per image")
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with JPEG files")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    main()
