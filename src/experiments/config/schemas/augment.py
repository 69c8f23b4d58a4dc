"""Types of `augment=[...]`: the augmentations of training images."""

from experiments.config.fields import Target, at_most, described, fraction, option, share


@option("flip")
class Flip(Target):
    """Flips an image with a probability of one half."""

    horizontal: bool = described("Flip left and right.")
    vertical: bool = described("Flip top and bottom.")


@option("rot90")
class Rot90(Target):
    """Rotates a square image by 0, 90, 180 or 270 degrees."""


@option("rotate")
class Rotate(Target):
    """Rotates an image by a random angle and fills the corners by reflection."""

    degrees: float = at_most(180, "Largest angle in degrees, in both directions.")


@option("crop_and_resize")
class CropAndResize(Target):
    """Cuts a random part out of an image and resizes it to the size of the image."""

    scale: float = share("Smallest part, as a fraction of the height and width of the image.")


@option("color_jitter")
class ColorJitter(Target):
    """Changes brightness and contrast at random."""

    brightness: float = fraction("Largest change of brightness, as a fraction of the range of pixel values.")
    contrast: float = fraction("Largest change of contrast, as a fraction of the contrast.")
