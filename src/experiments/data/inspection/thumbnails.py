"""Small JPEG pictures of examples for the inspection page."""

import io

import numpy as np
from PIL import Image, ImageOps

from experiments.data.images.headers import quiet_exif
from experiments.data.images.image_source import FileSource
from experiments.data.pipeline import Source

_SIDE = 128
_QUALITY = 80


def thumbnail(source: Source, position: int) -> bytes | None:
    """Returns an upright JPEG of at most 128 pixels per side; None if the example is not a readable image."""
    image = _photo(source, position) if isinstance(source, FileSource) else _array(source, position)
    if image is None:
        return None
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _photo(source: FileSource, position: int) -> Image.Image | None:
    try:
        with quiet_exif(), Image.open(source.names[position]) as opened:
            opened.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # decodes large photos at a reduced size
            image = ImageOps.exif_transpose(opened)
            image.thumbnail((_SIDE, _SIDE))
    except (OSError, SyntaxError, ValueError):
        return None
    return image


def _array(source: Source, position: int) -> Image.Image | None:
    """Returns the picture of an array: pixels are enlarged by an integer factor, floats are scaled to 0..255."""
    if len(source.spec.input_shape) != 3 or source.spec.input_shape[-1] not in (1, 3):
        return None
    (batch,) = source.batches(np.array([position]), 1, 1).as_numpy_iterator()
    values = batch[0].astype(np.float64)
    if batch.dtype != np.uint8:
        values = (values - values.min()) * 255 / (np.ptp(values) or 1.0)
    pixels = values.round().astype(np.uint8)
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    factor = _SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_SIDE, _SIDE))
    return image
