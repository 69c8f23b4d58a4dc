"""EXIF orientation: training and prediction use upright photos."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from experiments.data import IndexedSplit, image_folder
from experiments.data.images.headers import quiet_exif, read_header
from experiments.data.images.image_source import Decoder, upright

ORIENTATION = 0x0112
MakePhotos = Callable[[Path, dict[str, int]], Path]


def photo(orientation: int, kind: str = "PNG", size: tuple[int, int] = (7, 5)) -> bytes:
    """Returns an encoded image of noise; `size` is (width, height) as stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, exif=exif)
    return stream.getvalue()


def turned(content: bytes) -> Any:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_by_exif_equals_pillow(orientation: int) -> None:
    content = photo(orientation)
    expected = turned(content)
    decoder = Decoder(expected.shape[:2], channels=3, antialias=False)
    np.testing.assert_array_equal(
        decoder(tf.constant(content), tf.constant(read_header(content).orientation)), expected
    )
    stored = tf.io.decode_image(content, expand_animations=False)
    np.testing.assert_array_equal(upright(stored, tf.constant(orientation)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "read"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1)])
def test_header_contains_orientation_and_stored_size(kind: str, orientation: int, read: int) -> None:
    header = read_header(photo(orientation, kind))
    assert (header.width, header.height, header.orientation) == (7, 5, read)


def test_orientation_is_one_without_exif() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "JPEG")
    assert read_header(stream.getvalue()).orientation == 1


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"])
def test_invalid_exif_is_ignored_without_warning(exif: bytes) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "JPEG", exif=exif)
    with quiet_exif():
        assert read_header(stream.getvalue()).orientation == 1


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_uses_upright_photos(
    tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any], cache: str
) -> None:
    make_photos(tmp_path, {f"{split}/{kind}": 1 for split in ("train", "valid") for kind in ("cats", "dogs")})
    for orientation in range(1, 9):
        (tmp_path / f"train/cats/turned{orientation}.png").write_bytes(photo(orientation, size=(5, 5)))
    asked = {**options, "image_size": [5, 5], "cache": cache, "shuffle": False, "batch_size": 9}
    split = image_folder(str(tmp_path), **asked).train
    assert isinstance(split, IndexedSplit)
    inputs, _ = next(iter(split.epoch(0)))
    found = {Path(name).name: image for name, image in zip(split.source.names, inputs.numpy(), strict=False)}
    for orientation in range(1, 9):
        name = f"turned{orientation}.png"
        np.testing.assert_array_equal(found[name], turned((tmp_path / "train/cats" / name).read_bytes()))
