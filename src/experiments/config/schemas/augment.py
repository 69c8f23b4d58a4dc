"""Types of the augmentations."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import at_most, fraction, share


@dataclass
class Flip:
    _target_: str = MISSING
    horizontal: bool = MISSING
    vertical: bool = MISSING


@dataclass
class Rot90:
    _target_: str = MISSING


@dataclass
class Rotate:
    _target_: str = MISSING
    degrees: float = at_most(180)


@dataclass
class CropAndResize:
    _target_: str = MISSING
    scale: float = share()


@dataclass
class ColorJitter:
    _target_: str = MISSING
    brightness: float = fraction()
    contrast: float = fraction()


SCHEMAS: dict[str, type] = {
    "flip": Flip,
    "rot90": Rot90,
    "rotate": Rotate,
    "crop_and_resize": CropAndResize,
    "color_jitter": ColorJitter,
}
