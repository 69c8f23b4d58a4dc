"""Interface of data sets: a description of the examples, and batches addressed by epoch and step."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from experiments.errors import ConfigError, DataError

if TYPE_CHECKING:
    import tensorflow as tf

SPLIT_RULES = 3
"""Version of the rules for classes, splits and types of arrays; 1 until release 0.2, 2 before release 0.3."""
_rules: ContextVar[int] = ContextVar("_rules", default=SPLIT_RULES)
split_rules = _rules.get


@contextmanager
def using_split_rules(version: int) -> Iterator[None]:
    """Splits data by the rules of `version`, in user-defined data functions too, so that splits stay those of a run.

    Raises ConfigError for any other version, such as that of a later release.
    """
    if version not in range(1, SPLIT_RULES + 1):  # of any type, as it is read from a record
        raise ConfigError(f"split_rules={version}: expected 1 to {SPLIT_RULES}. Install a later release.")
    token = _rules.set(version)
    try:
        yield
    finally:
        _rules.reset(token)


PIXELS, UNIT, OTHER = "0..255", "0..1", "other"
WHITE = {PIXELS: 255.0, UNIT: 1.0}
"""Ranges of input values, and the highest value in those that images have."""


@dataclass(frozen=True)
class DataSpec:
    """Description of the examples of a split.

    input_shape: shape of one example without the batch axis, e.g. (160, 160, 3).
    input_dtype: "uint8" for pixels in 0..255, "float32" for anything else.
    digest: SHA-256 over the content in a fixed order, equal on every machine.
    class_counts: examples per class, in the order of `class_names`.
    source: origin of the data, shown to users (a folder, a file, a library).
    skipped: files left out by `on_corrupt=skip`, each with the reason.
    split_rules: version of the rules that made the splits and chose the type; see `using_split_rules`.
    value_range: range of the inputs: `PIXELS`, `UNIT`, `OTHER`, or None if unknown; uint8 means `PIXELS` then.
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
    split_rules: int = field(default_factory=split_rules)
    value_range: str | None = None

    def __post_init__(self) -> None:
        if self.input_dtype == "uint8" and self.value_range is None:
            object.__setattr__(self, "value_range", PIXELS)

    @property
    def inputs(self) -> str:
        return f"inputs {list(self.input_shape)} of {self.input_dtype} in the range {self.value_range or 'unknown'}"

    def white(self, user: str, channels: Collection[int] = ()) -> float:
        """Returns the highest value of images; raises DataError, naming `user`, if the inputs are no such images."""
        shape = self.input_shape
        if len(shape) != 3 or (channels and shape[2] not in channels) or self.value_range not in WHITE:
            remedy = "Convert the inputs, best to uint8" if self.value_range else "Set value_range in the DataSpec"
            raise DataError(
                f"{user} needs images [height, width, {' or '.join(map(str, channels)) or 'channels'}] with values in "
                f"0..255 or 0..1: received {self.inputs}. {remedy}, or do without {user}."
            )
        return WHITE[self.value_range]


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
