"""Headers of image files: complete files are accepted, truncated and unsupported ones are refused."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.data.images.headers import Header, UnreadableImageError, read_header

KINDS = ["JPEG", "PNG", "BMP", "GIF", "WEBP"]


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_header_of_complete_image_is_read(kind: str) -> None:
    assert read_header(encoded(kind)) == Header(kind, 56, 40, "P" if kind == "GIF" else "RGB", 1)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_image_is_refused(kind: str, part: float) -> None:
    content = encoded(kind)
    with pytest.raises(UnreadableImageError, match=r"truncated|header"):
        read_header(content[: int(len(content) * part)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not a JPEG, PNG, BMP, GIF or WebP image"),
        (b"\xff\xd8\xff\xe0 and nothing more", "header of a JPEG that cannot be read"),
    ],
)
def test_content_that_is_not_an_image_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
        read_header(content)


def test_end_marker_of_thumbnail_does_not_count() -> None:
    thumbnail = b"Exif\0\0" + encoded("JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    content = encoded("JPEG")
    whole = content[:2] + segment + content[2:]
    assert (read_header(whole).width, read_header(whole).orientation) == (56, 1)
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_header(whole[:-200])


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    progressive=st.booleans(),
    exif=st.sampled_from([b"", b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"]),
    comment=st.binary(max_size=30),
)
def test_jpeg_header_equals_pillow(
    size: tuple[int, int], mode: str, progressive: bool, exif: bytes, comment: bytes
) -> None:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "JPEG", progressive=progressive, exif=exif, comment=comment)
    with Image.open(stream) as image:
        assert read_header(stream.getvalue()) == Header("JPEG", *image.size, image.mode, 1)


@given(st.binary(max_size=200))
def test_invalid_jpeg_raises_only_unreadable_image_error(rest: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        read_header(b"\xff\xd8\xff" + rest)


def test_bytes_after_end_marker_are_accepted() -> None:
    assert read_header(encoded("JPEG") + bytes(5000)).height == 40
    assert read_header(encoded("JPEG", progressive=True)).height == 40


@pytest.mark.parametrize("mode", ["1", "P"])
def test_bmp_that_tensorflow_misreads_is_refused(mode: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"bits a pixel in mode {mode}"):
        read_header(encoded("BMP", mode))


@pytest.mark.parametrize(
    ("kind", "mode"), [("BMP", "L"), ("BMP", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "L"), ("JPEG", "CMYK")]
)
def test_accepted_image_can_be_decoded(kind: str, mode: str) -> None:
    content = encoded(kind, mode)
    read_header(content)
    decoded = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    if kind != "JPEG":
        expected = Image.open(io.BytesIO(content)).convert("RGBA").convert("RGB")
        np.testing.assert_array_equal(decoded, np.asarray(expected))
