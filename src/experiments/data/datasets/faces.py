"""Draws faces of cats and dogs, which differ in the shape of ears, eyes and snout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("cats", "dogs")
Color = tuple[int, int, int]
Point = tuple[float, float]
_SUPERSAMPLING = 2
_ANGLES = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_FURS: tuple[Color, ...] = (
    (196, 128, 64),
    (120, 84, 56),
    (70, 62, 60),
    (150, 146, 142),
    (222, 204, 176),
    (236, 232, 226),
    (176, 108, 72),
    (98, 96, 104),
)
_PINK, _BLACK, _WHITE = (214, 140, 146), (28, 24, 26), (246, 246, 244)


@dataclass(frozen=True)
class Face:
    """Draws in coordinates of the head: centre (0, 0), radius about 1, y downwards, rotated by `turn` radians."""

    canvas: ImageDraw.ImageDraw
    rng: np.random.Generator
    centre: Point
    radius: Point
    turn: float

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        self.canvas.polygon(self._pixels(np.array(points)), fill=fill)

    def ellipse(self, centre: Point, radii: Point, fill: Color, lean: float = 0.0) -> None:
        outline = _CIRCLE * radii @ _rotation(lean) + centre
        self.canvas.polygon(self._pixels(outline), fill=fill)

    def line(self, points: Sequence[Point], fill: Color, width: float) -> None:
        thick = max(1, round(width * self.radius[0]))
        self.canvas.line(self._pixels(np.array(points)), fill=fill, width=thick, joint="curve")

    def _pixels(self, points: NDArray[np.float64]) -> list[float]:
        placed: list[float] = (points * self.radius @ _rotation(self.turn) + self.centre).ravel().tolist()
        return placed

    def about(self, low: float, high: float) -> float:
        """Returns a random number between `low` and `high`."""
        return float(self.rng.uniform(low, high))


def draw_face(kind: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draws one RGB face of `kind` ("cats" or "dogs") with `size` x `size` pixels; `rng` makes all random choices."""
    large = size * _SUPERSAMPLING
    image = _background(large, rng)
    scale = rng.uniform(0.22, 0.36) * large
    face = Face(
        canvas=ImageDraw.Draw(image),
        rng=rng,
        centre=(large * rng.uniform(0.38, 0.62), large * rng.uniform(0.42, 0.64)),
        radius=(scale * rng.uniform(0.86, 1.14), scale * rng.uniform(0.9, 1.1)),
        turn=rng.normal(0, 0.22),
    )
    fur = _shaded(_FURS[rng.integers(len(_FURS))], rng.normal(1, 0.12))
    (_cat if kind == "cats" else _dog)(face, fur)
    return _photographed(image.reduce(_SUPERSAMPLING), rng)


def _cat(face: Face, fur: Color) -> None:
    tip, width = face.about(1.2, 1.65), face.about(0.34, 0.5)
    for side in (-1, 1):
        outer = face.about(0.62, 0.95)
        face.polygon([(side * 0.95, -0.3), (side * outer, -tip), (side * (0.95 - 2 * width), -0.78)], fur)
        face.polygon([(side * 0.82, -0.55), (side * outer * 0.97, -tip * 0.87), (side * 0.4, -0.76)], _PINK)
    face.ellipse((0, 0), (1.0, 0.88), fur)
    _stripes(face, fur)
    iris = ((120, 170, 70), (206, 170, 60), (110, 160, 190))[face.rng.integers(3)]
    for side in (-1, 1):
        eye = (side * 0.4, -0.12)
        face.ellipse(eye, (0.2, face.about(0.12, 0.19)), iris, lean=side * -0.25)
        face.ellipse(eye, (face.about(0.03, 0.08), 0.15), _BLACK)
    face.ellipse((0, 0.42), (0.32, 0.22), _shaded(fur, 1.12))
    face.polygon([(-0.1, 0.26), (0.1, 0.26), (0, 0.38)], _PINK)
    face.line([(-0.18, 0.52), (0, 0.46), (0, 0.38), (0, 0.46), (0.18, 0.52)], _BLACK, 0.035)
    _whiskers(face)


def _stripes(face: Face, fur: Color) -> None:
    if face.about(0, 1) < 0.5:
        for x in (-0.25, 0.0, 0.25):
            face.line([(x, -0.82 + abs(x) * 0.2), (x * 0.8, -0.45)], _shaded(fur, 0.65), 0.08)


def _whiskers(face: Face) -> None:
    color, spread, length = _shaded(_WHITE, face.about(0.3, 1.0)), face.about(0.1, 0.22), face.about(1.0, 1.4)
    for side in (-1, 1):
        for hair in (-1, 0, 1):
            face.line([(side * 0.25, 0.42 + 0.04 * hair), (side * length, 0.4 + spread * hair)], color, 0.02)


def _dog(face: Face, fur: Color) -> None:
    dark = _shaded(fur, face.about(0.55, 0.9))
    face.ellipse((0, 0), (face.about(0.82, 0.95), 1.0), fur)
    length, lean = face.about(0.5, 0.85), face.about(0.05, 0.45)
    for side in (-1, 1):
        face.ellipse((side * (0.82 + lean * 0.3), length - 0.85), (face.about(0.24, 0.34), length), dark, -side * lean)
    if face.about(0, 1) < 0.4:
        face.ellipse((0.38, -0.25), (0.32, 0.34), dark)
    for side in (-1, 1):
        face.ellipse((side * 0.36, -0.22), (0.13, 0.13), _BLACK)
        face.ellipse((side * 0.36 + 0.04, -0.27), (0.04, 0.04), _WHITE)
    _snout(face, fur)


def _snout(face: Face, fur: Color) -> None:
    wide, low = face.about(0.42, 0.58), face.about(0.38, 0.5)
    if face.about(0, 1) < 0.5:
        face.ellipse((0.05, low + 0.42), (0.16, 0.3), (206, 90, 100))
    face.ellipse((0, low), (wide, 0.4), _shaded(fur, 1.25))
    face.ellipse((0, low - 0.2), (face.about(0.18, 0.25), 0.15), _BLACK)
    face.line(
        [(-0.26, low + 0.24), (0, low + 0.16), (0, low - 0.1), (0, low + 0.16), (0.26, low + 0.24)], _BLACK, 0.045
    )


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    """Draws a smooth random background with a few polygons in front of it."""
    coarse = rng.integers(0, 256, 3) * 0.6 + rng.normal(50, 40, (*rng.integers(2, 7, 2), 3))
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 5)):
        color = (int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256)))
        corners = rng.uniform(0, size, 2) + rng.uniform(-0.3, 0.3, (rng.integers(3, 6), 2)) * size
        canvas.polygon([(float(x), float(y)) for x, y in corners], fill=color)
    return image


def _photographed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds uneven light, exposure and noise like those of a photo."""
    pixels = np.array(image, np.float32)
    slope = np.linspace(-1, 1, len(pixels), dtype=np.float32)[:, None]
    down, across, exposure, grain = rng.normal(0, 0.12), rng.normal(0, 0.12), rng.uniform(0.75, 1.2), rng.uniform(3, 16)
    pixels *= ((1 + down * slope + across * slope.T) * exposure).astype(np.float32)[..., None]
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(grain)
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))


def _rotation(angle: float) -> NDArray[np.float64]:
    """Returns a matrix that rotates points [n, 2] by `points @ matrix`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _shaded(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, max(0, round(part * factor))) for part in color)
    return red, green, blue
