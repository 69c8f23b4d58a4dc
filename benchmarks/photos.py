"""What the benchmarks of the data path share: folders of any number of photos, and the pipelines that read them."""

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
    """A folder with `count` photos in train/{cats,dogs} and some in valid/: links to as many as there are."""
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
    """Where a temporary folder may be made: hard links need the photos' own file system, and git is to see none."""
    folder = Path("build").absolute()
    folder.mkdir(exist_ok=True)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def ours(root: Path, size: int, *, cache: str, cache_dir: Path) -> Splits:
    """What `data=image_folder data.path=root` builds."""
    return built(composed(root, size, cache=cache, cache_dir=cache_dir))


def built(cfg: DictConfig) -> Splits:
    splits: Splits = build(cfg.data, seed=0, augment=[])
    return splits


def composed(root: Path, size: int, *, cache: str, cache_dir: Path) -> DictConfig:
    """What every command composes before it knows of any data: no part of what reading photos costs."""
    register()
    words = {
        "path": f"'{root}'",
        "image_size": [size, size],
        "batch_size": BATCH_SIZE,
        "cache": cache,
        "cache_dir": f"'{cache_dir}'",
        # the same photo is there many times
        "allow_leakage": True,
    }
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", ["data=image_folder", *(f"data.{key}={value}" for key, value in words.items())])


def tutorial(root: Path, size: int) -> tf.data.Dataset:
    """As the TensorFlow tutorial has it: decode, resize to float32, shuffle the decoded images, batch, prefetch."""

    def read(path: tf.Tensor) -> tuple[Any, Any]:
        label = tf.cast(tf.strings.split(path, os.sep)[-2] == "dogs", tf.int64)
        return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), [size, size]), label

    files = tf.data.Dataset.list_files(f"{root}/train/*/*.jpg", shuffle=False)
    images = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return images.shuffle(20_000).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def as_float(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """What the others give too, and as parallel; in a run the model does it."""
    return dataset.map(lambda x, y: (tf.cast(x, tf.float32), y), num_parallel_calls=tf.data.AUTOTUNE)
