"""The 1797 handwritten digits of scikit-learn, which are part of its installation: nothing is downloaded."""

from typing import Unpack

import numpy as np

from experiments.data.arrays import from_arrays
from experiments.data.base import Splits
from experiments.data.pipeline import SplitOptions
from experiments.data.sampling import held_out


def digits(*, test_fraction: float, **options: Unpack[SplitOptions]) -> Splits:
    """Returns splits of uint8 [8, 8, 1] images in 0..255; `test_fraction=0` makes no test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]  # 16 is the highest grey level there
    # The prefix makes this hash independent of the hash of the position that chooses the validation split.
    tested = held_out([f"test {index}" for index in range(len(images))], test_fraction)
    return from_arrays(
        (images[~tested], bunch.target[~tested]),
        test=(images[tested], bunch.target[tested]) if tested.any() else None,
        class_names=[str(name) for name in bunch.target_names],
        source="sklearn.datasets.load_digits",
        **options,
    )
