"""The data seam: what a run needs to know of a data set, and batches addressed by epoch and step."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class DataSpec:
    """What a split holds.

    input_shape: one example without the batch axis, e.g. (160, 160, 3).
    input_dtype: "uint8" for pixels in 0..255, "float32" for anything else.
    digest: SHA-256 over the content in a fixed order; equal on every machine.
    class_counts: examples per class, in the order of `class_names`.
    source: where the data came from, for people (a folder, a file, a library).
    skipped: files left out by `on_corrupt=skip`, with the reason of each.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    num_classes: int
    class_names: tuple[str, ...]
    num_examples: int
    digest: str
    class_counts: tuple[int, ...]
    source: str
    skipped: tuple[str, ...] = field(default=())


class Split(Protocol):
    """Batch k of epoch e is a pure function of the config: no running iterator, no shuffle buffer."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, *, first_step: int = 0) -> "tf.data.Dataset":
        """Batches (inputs, labels), or (inputs, labels, weights) where examples have any, from `first_step` on.

        inputs: [batch, *input_shape] of `spec.input_dtype`; labels: int64 [batch]; weights: float32 [batch].
        The last batch may be short; `element_spec` always has a batch axis of None.
        """
        ...


@dataclass(frozen=True)
class Splits:
    """The splits of one data set; `test` is None where the source has none."""

    train: Split
    validation: Split
    test: Split | None = None

    def named(self) -> dict[str, Split]:
        """Those that there are."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}
