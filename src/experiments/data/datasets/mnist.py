"""Handwritten digits of MNIST, in the .npz file that Keras publishes."""

from pathlib import Path
from typing import Unpack

from experiments.data.base import Splits
from experiments.data.datasets.download import download
from experiments.data.datasets.npz import npz
from experiments.data.pipeline import SplitOptions
from experiments.files import exclusive


def mnist(path: str, *, url: str, sha256: str, **options: Unpack[SplitOptions]) -> Splits:
    """Returns splits of uint8 [28, 28, 1] images; downloads `url` to the file `path` if it does not exist.

    Raises DataError if the download fails or the file is not the expected one.
    """
    file = Path(path)
    if not file.exists():
        offline = f"Without network, put Keras's mnist.npz at '{file}' or set data.path to it, or use data=digits."
        with exclusive(file):
            if not file.exists():
                download(url, file, sha256=sha256, offline=offline)
    return npz(path, **options)
