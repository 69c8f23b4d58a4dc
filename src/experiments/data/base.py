"""Interface of data sets: a description of the examples, and batches addressed by epoch and step."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class DataSpec:
    """Description of the examples of a split.

    input_shape: shape of one example without the batch axis, e.g. (160, 160, 3).
    input_dtype: "uint8" for pixels in 0..255, "float32" for anything else.
    digest: SHA-256 over the content in a fixed order, equal on every machine.
    class_counts: examples per class, in the order of `class_names`.
    source: origin of the data, shown to users (a folder, a file, a library).
    skipped: files left out by `on_corrupt=skip`, each with the reason.
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
    """Batches addressed by epoch and step; batch k of epoch e depends only on the config, not on earlier batches."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, *, first_step: int = 0) -> "tf.data.Dataset":
        """Returns batches from `first_step` on: (inputs, labels), or (inputs, labels, weights) if there are weights.

        inputs: [batch, *input_shape] of `spec.input_dtype`; labels: int64 [batch]; weights: float32 [batch].
        The last batch may be short; `element_spec` always has a batch axis of None.
        """
        ...


@dataclass(frozen=True)
class Splits:
    """Splits of one data set; `test` is None if there is no test split."""

    train: Split
    validation: Split
    test: Split | None = None

    def named(self) -> dict[str, Split]:
        """Returns the existing splits by name."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}
