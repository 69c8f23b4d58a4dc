"""Which examples belong to which split: by a hash of their names, the same on every machine and for every seed."""

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def position(name: str) -> float:
    """A number in [0, 1) that depends on `name` only (in Unicode's composed form, since file systems differ)."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def held_out(names: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """True for about `fraction` of `names`; at least one of two or more is held out, and one is not."""
    positions = np.array([position(name) for name in names])
    chosen = positions < fraction
    if fraction > 0 and len(names) > 1:
        chosen[positions.argmin()], chosen[positions.argmax()] = True, False
    return chosen


def spread(labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """The positions of at most `limit` examples, in ascending order; every class keeps its share."""
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, limit).round().astype(np.int64)])
