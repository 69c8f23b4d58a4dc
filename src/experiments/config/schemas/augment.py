"""Types of the augmentations."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, at_most, fraction, share


@dataclass
class Flip(Target):
    horizontal: bool = MISSING
    vertical: bool = MISSING


@dataclass
class Rotate(Target):
    degrees: float = at_most(180)


@dataclass
class CropAndResize(Target):
    scale: float = share()


@dataclass
class ColorJitter(Target):
    brightness: float = fraction()
    contrast: float = fraction()


SCHEMAS: dict[str, type] = {
    "flip": Flip,
    "rot90": Target,
    "rotate": Rotate,
    "crop_and_resize": CropAndResize,
    "color_jitter": ColorJitter,
}
