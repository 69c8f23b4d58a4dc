"""Class weights and balanced sampling for classes of unequal size, held-out examples and subsets."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.data.base import DataSpec
from experiments.errors import DataError, near

ClassWeight = Mapping[str, float] | Literal["balanced"] | None
"""Weights by class name, 1 for missing names; "balanced" gives all classes the same total; None adds no weights."""


def class_weights(given: ClassWeight, spec: DataSpec) -> tuple[float, ...] | None:
    """Returns one weight per class in the order of `spec.class_names`, as Keras and scikit-learn define them.

    `balanced` is num_examples / (number of classes that have examples * examples of this class).
    Raises DataError for an unknown class or an invalid weight.
    """
    if given is None:
        return None
    if given == "balanced":
        present = sum(count > 0 for count in spec.class_counts)
        return tuple(spec.num_examples / (present * count) if count else 0.0 for count in spec.class_counts)
    if not isinstance(given, Mapping):
        raise _wrong(f"class_weight={given}", spec)
    numbers: dict[object, str] = {} if any(map(str.isdecimal, spec.class_names)) else dict(enumerate(spec.class_names))
    weights = {numbers.get(name, str(name)): weight for name, weight in given.items()}
    for name, weight in weights.items():
        if name not in spec.class_names:
            raise DataError(f"data.class_weight names the class '{name}'. {near(name, spec.class_names)}")
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise _wrong(f"class_weight.{name}={weight}", spec)
    weight_of_each = tuple(float(weights.get(name, 1.0)) for name in spec.class_names)
    if not any(weight_of_each):
        raise DataError("data.class_weight gives every class a weight of 0: expected one above 0. Change a weight.")
    return weight_of_each


def balanced_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns len(labels) positions in random order, with each class equally often.

    `rng` draws the classes that get one position more if the number is not divisible. Within a class, no example is
    used a third time before every other one has been used twice.
    """
    classes = np.unique(labels)
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[rng.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    chosen = [_drawn(np.flatnonzero(labels == label), share, rng) for label, share in zip(classes, shares, strict=True)]
    return rng.permutation(np.concatenate(chosen))


def _drawn(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = -(-count // len(members))
    # A count of 0 gives no rounds, but np.concatenate needs an array.
    return np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members])[:count]


def _wrong(received: str, spec: DataSpec) -> DataError:
    return DataError(
        f"data.{received}: expected null, balanced or a number of 0 or more for a class, as in "
        f"data.class_weight={{{spec.class_names[0]}:2}}. Change data.class_weight."
    )


def position(name: str) -> float:
    """Returns a number in [0, 1) that depends only on `name` (in Unicode's composed form, as file systems differ)."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:4]) / 2**32


def held_out(names: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """Returns True for about `fraction` of `names`; of two or more, at least one is held out and one is not."""
    positions = np.array([position(name) for name in names])
    chosen = positions < fraction
    if fraction > 0 and len(names) > 1:
        chosen[positions.argmin()], chosen[positions.argmax()] = True, False
    return chosen


def stratified_subset(labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Returns the positions of at most `limit` examples in ascending order; the classes keep their proportions."""
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, limit).round().astype(np.int64)])
