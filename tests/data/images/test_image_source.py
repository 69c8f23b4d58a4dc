"""Decoding and caching of image files, and corrupt files found by the scan or during training."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data import Flip, IndexedSplit, Splits, image_folder, named_errors
from experiments.data.images.headers import Header
from experiments.data.images.image_source import Decoder, digest
from experiments.data.images.scan import FileState, Record
from experiments.errors import DataError

FOLDERS = {"train/cats": 6, "train/dogs": 5, "valid/cats": 3, "valid/dogs": 3}


@pytest.fixture
def photos(tmp_path: Path, make_photos: Callable[[Path, dict[str, int]], Path]) -> Path:
    return make_photos(tmp_path / "Fotos äö ü ß", FOLDERS)


def test_decoded_image_equals_tensorflow_resize_rounded_to_uint8(photos: Path, options: dict[str, Any]) -> None:
    split = image_folder(str(photos), **{**options, "shuffle": False}).train
    inputs, labels = next(iter(split.epoch(0)))
    content = tf.io.read_file(str(photos / "train/cats/000.jpg"))
    expected = tf.image.resize(tf.io.decode_image(content, channels=3), (16, 12))
    np.testing.assert_array_equal(inputs[0], np.round(expected.numpy()))
    np.testing.assert_array_equal(labels, [0, 0, 0, 0])


def test_spec_describes_the_folder(photos: Path, options: dict[str, Any]) -> None:
    spec = image_folder(str(photos), **options).train.spec
    assert (spec.input_shape, spec.input_dtype) == ((16, 12, 3), "uint8")
    assert (spec.class_names, spec.class_counts, spec.num_examples) == (("cats", "dogs"), (6, 5), 11)
    assert (spec.source, spec.skipped) == (str(photos), ())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_grey_levels_are_unchanged(tmp_path: Path, kind: str) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "grey", kind)
    decoded = Decoder((16, 16), channels=1, antialias=False).read(tf.constant(str(tmp_path / "grey")), tf.constant(1))
    np.testing.assert_array_equal(decoded[..., 0], values)


def test_antialias_changes_pixels(photos: Path, options: dict[str, Any]) -> None:
    small = {**options, "image_size": [5, 5], "shuffle": False}
    rough, smooth = (image_folder(str(photos), **small | {"antialias": on}).train for on in (False, True))
    assert not np.array_equal(next(iter(rough.epoch(0)))[0], next(iter(smooth.epoch(0)))[0])


def test_memory_cache_changes_no_bit(photos: Path, options: dict[str, Any]) -> None:
    options = {**options, "augment": [Flip(True, False)]}
    plain, kept = (image_folder(str(photos), **{**options, "cache": cache}).train for cache in ("none", "memory"))
    assert plain.spec == kept.spec
    for epoch in range(2):
        for (x, y), (other_x, other_y) in zip(plain.epoch(epoch), kept.epoch(epoch), strict=True):
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(y, other_y)


def test_cached_split_does_not_need_its_files(photos: Path, options: dict[str, Any]) -> None:
    split = image_folder(str(photos), **{**options, "cache": "memory"}).train
    first = [x.numpy() for x, _ in split.epoch(0)]
    for file in photos.rglob("*.jpg"):
        file.unlink()
    for before, (after, _) in zip(first, split.epoch(0), strict=True):
        np.testing.assert_array_equal(before, after)


def test_corrupt_files_are_named_in_error(photos: Path, options: dict[str, Any]) -> None:
    _truncate(photos / "train/cats/001.jpg")
    (photos / "train/dogs/002.jpg").write_bytes(b"")
    with pytest.raises(DataError) as raised:
        image_folder(str(photos), **options)
    assert str(raised.value) == (
        f"2 images of 17 below '{photos}' cannot be read: train/cats/001.jpg (truncated), train/dogs/002.jpg (empty). "
        "Remove or replace them, or set data.on_corrupt=skip to leave them out."
    )


def test_skipped_files_are_left_out_and_logged(
    photos: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("000", "001", "002", "003"):
        _truncate(photos / f"train/cats/{name}.jpg")
    with caplog.at_level(logging.WARNING):
        spec = image_folder(str(photos), **{**options, "on_corrupt": "skip"}).train.spec
    assert (spec.num_examples, spec.class_counts) == (7, (2, 5))
    assert spec.skipped[0] == "train/cats/000.jpg (truncated)"
    assert len(spec.skipped) == 4
    assert "Left out 4 images of 17" in caplog.text
    assert "and 1 more" in caplog.text


def test_split_without_readable_images_is_an_error(photos: Path, options: dict[str, Any]) -> None:
    for file in (photos / "valid").rglob("*.jpg"):
        _truncate(file)
    with pytest.raises(DataError, match=r"^No image of 'validation' below .* is left\. Check data\.limit"):
        image_folder(str(photos), **{**options, "on_corrupt": "skip"})


def test_digest_depends_on_content_and_class_not_on_order() -> None:
    header = Header("JPEG", 2, 2, "RGB", 1)
    state = FileState(1, 1, 1, 1)
    records = [Record(f"{name}.jpg", 0, name * 3, header, state) for name in "abc"]
    assert digest(records) == digest(records[::-1])
    assert digest(records) != digest([*records[:2], Record("c.jpg", 1, "ccc", header, state)])


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_corrupt_pixels_found_during_training_are_named(photos: Path, options: dict[str, Any], cache: str) -> None:
    victim = photos / "train/dogs/003.jpg"
    _corrupt(victim)
    splits = image_folder(str(photos), **{**options, "cache": cache})
    with pytest.raises(DataError) as raised, named_errors(splits):
        _read(splits)
    assert str(raised.value) == (
        f"An image could not be read during training, although header and end were valid before: {victim}. "
        "Replace or delete corrupt and missing files, and start again."
    )


def test_corrupt_pixels_pass_the_scan(photos: Path, options: dict[str, Any]) -> None:
    """Header and end marker are valid, so only decoding can find the corruption."""
    _corrupt(photos / "train/dogs/003.jpg")
    assert image_folder(str(photos), **options).train.spec.skipped == ()


def test_deleted_file_is_named(photos: Path, options: dict[str, Any]) -> None:
    splits = image_folder(str(photos), **options)
    (photos / "valid/cats/000.jpg").unlink()
    with pytest.raises(DataError, match=r"valid.cats.000\.jpg"), named_errors(splits):
        _read(splits)


def test_unrelated_errors_pass_through(photos: Path, options: dict[str, Any]) -> None:
    splits = image_folder(str(photos), **options)
    with pytest.raises(tf.errors.InvalidArgumentError), named_errors(splits):
        tf.reshape(tf.zeros(3), (2, 2))
    with pytest.raises(KeyError), named_errors(splits):
        raise KeyError("mine")


@pytest.mark.real_data
def test_corrupt_real_photos_are_found(real_data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """The photos are overwritten in the middle, and TensorFlow cannot decode at least 12 of 32."""
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for kind in ("cats", "dogs"):
            (tmp_path / split / kind).mkdir(parents=True)
            for file in sorted((real_data / "cats_dogs" / split / kind).glob("*.jpg"))[:8]:
                content = bytearray(file.read_bytes())
                middle, length = len(content) // 2, len(content) // 4
                content[middle : middle + length] = rng.bytes(length)
                (tmp_path / split / kind / file.name).write_bytes(content)
    splits = image_folder(str(tmp_path), **options)
    assert isinstance(splits.train, IndexedSplit)
    assert len(splits.train.source.unreadable_examples()) >= 12
    with pytest.raises(DataError, match=r"^\d+ images could not be read during training"), named_errors(splits):
        _read(splits)


def _read(splits: Splits) -> None:
    for split in (splits.train, splits.validation):
        for _ in split.epoch(0):
            pass


def _truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-20])


def _corrupt(file: Path) -> None:
    """Writes a marker that decoders refuse into the image data; header and end stay valid."""
    content = bytearray(file.read_bytes())
    start = content.index(b"\xff\xda") + 16
    content[start : start + 2] = b"\xff\xc3"
    file.write_bytes(content)
