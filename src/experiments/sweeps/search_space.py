"""What a sweep varies, in Hydra's own words for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.types import IntervalSweep, Override

from experiments.errors import ConfigError

Choice = tuple[str, ...]
"""Words of the command line that belong together: one, or one for each key of a zip."""
Label = str | int | float
"""A choice as a person tells it from the others: its value, or its values."""
Cell = dict[str, Label]
"""Name of a dimension -> what is chosen of it, a choice's label or a number from an interval."""


@dataclass(frozen=True)
class Dimension:
    """One thing that varies. choices: for discrete ones; interval: the others' bounds."""

    name: str
    choices: tuple[Choice, ...] = ()
    interval: IntervalSweep | None = None

    @property
    def labels(self) -> list[Label]:
        """Numbers where they are, so that figures have a scale."""
        return [_label(", ".join(word.partition("=")[2] for word in choice)) for choice in self.choices]

    @property
    def integer(self) -> bool:
        """`int(interval(1, 9))`."""
        return self.interval is not None and isinstance(self.interval.start, int)

    @property
    def log(self) -> bool:
        """`tag(log, interval(1e-5, 1e-1))`."""
        return self.interval is not None and "log" in self.interval.tags

    def overrides(self, chosen: Label) -> Choice:
        """What would be typed for `chosen`."""
        if self.interval is not None:
            return (f"{self.name}={chosen}",)
        return self.choices[self.labels.index(chosen)]


def _label(text: str) -> Label:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def dimensions(overrides: Sequence[Override], zipped: Sequence[Sequence[str]]) -> list[Dimension]:
    """Of the overrides that vary; keys of one zip are one dimension.

    Raises ConfigError for a zip of keys that do not vary, or in different numbers, and for a value that is there twice.
    """
    single = [_dimension(override) for override in overrides if override.is_sweep_override()]
    for keys in zipped:
        single = _zip(single, list(keys))
    for dimension in single:
        _refuse_twice(dimension)
    return single


def _refuse_twice(dimension: Dimension) -> None:
    seen: dict[Label, Choice] = {}
    for choice, label in zip(dimension.choices, dimension.labels, strict=True):
        if label in seen:
            raise ConfigError(
                f"{' '.join(choice)} would do the jobs of {' '.join(seen[label])} again: expected different values. "
                "Leave one out."
            )
        seen[label] = choice


def fixed(overrides: Sequence[Override]) -> list[str]:
    """What is the same for all jobs, as it was typed; what the sweep itself reads apart."""
    return [
        str(override.input_line)
        for override in overrides
        if not override.is_sweep_override() and not str(override.key_or_group).startswith("sweep.")
    ]


def _dimension(override: Override) -> Dimension:
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        return Dimension(key, interval=value)
    return Dimension(key, tuple((f"{key}={text}",) for text in override.sweep_string_iterator()))


def _zip(single: list[Dimension], keys: list[str]) -> list[Dimension]:
    parts = [dimension for key in keys for dimension in single if dimension.name.lstrip("+") == key]
    if len(parts) != len(keys) or not all(part.choices for part in parts):
        found = ", ".join(part.name for part in parts if part.choices) or "none of them"
        raise ConfigError(
            f"sweep.zip={keys} needs several values for each of its keys: expected KEY=A,B for all, found {found}. "
            "Add the values, or leave the key out of sweep.zip."
        )
    lengths = {part.name: len(part.choices) for part in parts}
    if len(set(lengths.values())) > 1:
        raise ConfigError(
            f"sweep.zip={keys} needs equally many values for each key, received {lengths}. Give them equally many."
        )
    joined = Dimension(
        ",".join(keys),
        tuple(sum(choices, ()) for choices in zip(*(part.choices for part in parts), strict=True)),
    )
    place = min(single.index(part) for part in parts)
    others = [dimension for dimension in single if dimension not in parts]
    return [*others[:place], joined, *others[place:]]


def grid(space: Sequence[Dimension]) -> Iterator[Cell]:
    """Every cell, the last dimension fastest. Raises ConfigError where a dimension has no end of values."""
    endless = [dimension.name for dimension in space if dimension.interval is not None]
    if endless:
        raise ConfigError(
            f"{endless[0]}=interval(...) has no grid: expected choices or a range. "
            "List values, or set sweep.sampler=random or tpe and sweep.n_trials."
        )
    for labels in product(*(dimension.labels for dimension in space)):
        yield dict(zip((dimension.name for dimension in space), labels, strict=True))


def cell_overrides(space: Sequence[Dimension], cell: Mapping[str, Label]) -> list[str]:
    """What would be typed to run the cell alone."""
    return [word for dimension in space for word in dimension.overrides(cell[dimension.name])]


def is_excluded(rules: Sequence[Mapping[str, object]], job: Sequence[str]) -> bool:
    """Whether a job has all values of one rule, as {model: cnn, optimizer.learning_rate: 0.1}. job: its overrides."""
    values = dict(word.lstrip("+").split("=", 1) for word in job if "=" in word)
    return any(rule and all(_same(values.get(str(key)), str(value)) for key, value in rule.items()) for rule in rules)


def _same(value: str | None, other: str) -> bool:
    """1e-3 is 0.001."""
    try:
        return value is not None and float(value) == float(other)
    except ValueError:
        return value == other
