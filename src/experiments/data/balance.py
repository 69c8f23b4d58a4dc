"""Classes of unequal size: weights for their examples, or as many draws of each."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.data.base import DataSpec
from experiments.errors import DataError, near

ClassWeight = Mapping[str, float] | Literal["balanced"] | None
"""`balanced`: the same total for every class; a mapping: class name -> weight, 1 for those it leaves out."""


def class_weights(given: ClassWeight, spec: DataSpec) -> tuple[float, ...] | None:
    """One weight a class in the order of `spec.class_names`, as Keras and scikit-learn define them.

    `balanced` is num_examples / (number of classes that have examples * examples of this class).
    Raises DataError for an unknown class or a weight that cannot be one.
    """
    if given is None:
        return None
    if given == "balanced":
        present = sum(count > 0 for count in spec.class_counts)
        return tuple(spec.num_examples / (present * count) if count else 0.0 for count in spec.class_counts)
    if not isinstance(given, Mapping):
        raise _wrong(f"class_weight={given}", spec)
    weights = {str(name): weight for name, weight in given.items()}
    for name, weight in weights.items():
        if name not in spec.class_names:
            raise DataError(f"data.class_weight names the class '{name}'. {near(name, spec.class_names)}")
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise _wrong(f"class_weight.{name}={weight}", spec)
    found = tuple(float(weights.get(name, 1.0)) for name in spec.class_names)
    if not any(found):
        raise DataError("data.class_weight gives every class a weight of 0: expected one above 0. Change a weight.")
    return found


def balanced_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many positions as `labels` has, in random order, each class as often as any other.

    What does not divide evenly goes to classes drawn by `rng`. Within a class no example comes a third time before
    every other has come twice.
    """
    classes = np.unique(labels)
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[rng.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    chosen = [_drawn(np.flatnonzero(labels == label), share, rng) for label, share in zip(classes, shares, strict=True)]
    return rng.permutation(np.concatenate(chosen))


def _drawn(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members])[:count]


def _wrong(received: str, spec: DataSpec) -> DataError:
    return DataError(
        f"data.{received}: expected null, balanced or a number of 0 or more for a class, as in "
        f"data.class_weight={{{spec.class_names[0]}:2}}. Change data.class_weight."
    )
