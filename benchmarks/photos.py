"""Functions shared by the data benchmarks: folders with any number of photos, and the pipelines that read them."""

import os
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
from hydra import compose, initialize_config_dir
from measurement import cats_dogs
from omegaconf import DictConfig

from experiments.config import register
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.data.base import Splits

BATCH_SIZE = 32


def photos(folder: Path, count: int, originals: Path | None = None, *, validation: int = 4) -> Path:
    """Creates a folder with `count` photos in train/ and `validation` in valid/, as repeated links to the originals."""
    source = originals or cats_dogs(folder)
    root = folder / f"photos-{count}"
    if root.exists():
        return root
    partial = folder / f"photos-{count}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for split, number in (("train", count), ("valid", validation)):
        for kind in ("cats", "dogs"):
            files = sorted((source / split / kind).glob("*.jpg"))
            (partial / split / kind).mkdir(parents=True)
            for index in range(number // 2):
                _link(files[index % len(files)], partial / split / kind / f"{index:06}.jpg")
    return partial.rename(root)


def scratch() -> Path:
    """Folder for temporary folders: hard links need the file system of the photos, and git ignores build/."""
    folder = Path("build").absolute()
    folder.mkdir(exist_ok=True)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def ours(root: Path, size: int, *, cache: str, cache_dir: Path) -> Splits:
    """Builds the splits of `data=image_folder data.path=root`."""
    return built(composed(root, size, cache=cache, cache_dir=cache_dir))


def built(cfg: DictConfig) -> Splits:
    splits: Splits = build(cfg.data, seed=0, augment=[])
    return splits


def composed(root: Path, size: int, *, cache: str, cache_dir: Path) -> DictConfig:
    """Composes the config. Benchmarks do not time this, because it is no part of reading photos."""
    register()
    values = {
        "path": f"'{root}'",
        "image_size": [size, size],
        "batch_size": BATCH_SIZE,
        "cache": cache,
        "cache_dir": f"'{cache_dir}'",
        # The same photo occurs many times.
        "allow_leakage": True,
    }
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", ["data=image_folder", *(f"data.{key}={value}" for key, value in values.items())])


def tutorial(root: Path, size: int) -> tf.data.Dataset:
    """Pipeline of the TensorFlow tutorial: decode, resize to float32, shuffle the decoded images, batch, prefetch."""

    def read(path: tf.Tensor) -> tuple[Any, Any]:
        label = tf.cast(tf.strings.split(path, os.sep)[-2] == "dogs", tf.int64)
        return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), [size, size]), label

    files = tf.data.Dataset.list_files(f"{root}/train/*/*.jpg", shuffle=False)
    images = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return images.shuffle(20_000).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def as_float(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Casts images to float32 in parallel, as the other pipelines do. In a run, the model casts them."""
    return dataset.map(lambda x, y: (tf.cast(x, tf.float32), y), num_parallel_calls=tf.data.AUTOTUNE)
