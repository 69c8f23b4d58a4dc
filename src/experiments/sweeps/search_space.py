"""The search space of a sweep, defined by sweep overrides of Hydra."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override

from experiments.errors import ConfigError, first_few

Choice = tuple[str, ...]
"""Overrides that are chosen together: one, or one for each key of a zip."""
Label = str | int | float
"""Value of a choice, or the values of a zip as text. Distinguishes the choices of a dimension."""
Cell = dict[str, Label]
"""One combination: maps the name of each dimension to the label of a choice, or to a number from its interval."""
_SHARED = re.compile(r"=(?:choice\((.*)\)|(null),null)$")
"""A value that all jobs share. Hydra would return the text in `choice()` without the quotes that it may need."""


@dataclass(frozen=True)
class Dimension:
    """A swept key, or the keys of one zip. It has either discrete `choices` or the bounds of an `interval`."""

    name: str
    choices: tuple[Choice, ...] = ()
    interval: IntervalSweep | None = None

    @property
    def labels(self) -> list[Label]:
        """Labels of the choices, as numbers if possible, so that figures have a numeric axis."""
        return [_label(", ".join(text.partition("=")[2] for text in choice)) for choice in self.choices]

    def overrides(self, chosen: Label) -> Choice:
        """Overrides for the label or number `chosen`."""
        if self.interval is not None:
            return (f"{self.name}={chosen}",)
        return self.choices[self.labels.index(chosen)]


def _label(text: str) -> Label:
    """Returns a number only for text that Hydra parses as a number: `007` is text."""
    if not re.fullmatch(r"[+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?", text):
        return text
    return float(text) if re.search(r"[.e]", text) else int(text)


def dimensions(overrides: Sequence[Override], zipped: Sequence[Sequence[str]]) -> list[Dimension]:
    """Dimensions of the sweep overrides; the keys of one zip are one dimension.

    Raises ConfigError for duplicate values, and for a zip of keys that are not swept or differ in length.
    """
    single = [_dimension(override) for override in overrides if _varies(override)]
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
    """Overrides that all jobs share, without those of the `sweep` group. `KEY=choice(VALUE)` becomes `KEY=VALUE`."""
    return [
        _SHARED.sub(r"=\1\2", str(override.input_line))
        for override in overrides
        if not _varies(override) and not str(override.key_or_group).startswith("sweep.")
    ]


def _varies(override: Override) -> bool:
    """Returns False for overrides of a single value and for choices of one value."""
    value = override.value()
    single = isinstance(value, ChoiceSweep) and (len(value.list) == 1 or value.list == [None, None])
    return override.is_sweep_override() and not (single and _SHARED.search(str(override.input_line)))


def _dimension(override: Override) -> Dimension:
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        return Dimension(key, interval=value)
    texts = override.sweep_string_iterator()
    # Hydra escapes interpolations if they are not quoted: `$\{oc.env\:NAME\}` was typed as `${oc.env:NAME}`.
    typed = (re.sub(r"\\(.)", r"\1", text) if r"$\{" in text else text for text in texts)
    return Dimension(key, tuple((f"{key}={text}",) for text in typed))


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
        ",".join(keys), tuple(sum(choices, ()) for choices in zip(*(part.choices for part in parts), strict=True))
    )
    place = min(single.index(part) for part in parts)
    others = [dimension for dimension in single if dimension not in parts]
    return [*others[:place], joined, *others[place:]]


def grid(space: Sequence[Dimension]) -> Iterator[Cell]:
    """Yields all combinations; the last dimension varies fastest. Raises ConfigError if a dimension is an interval."""
    endless = [dimension.name for dimension in space if dimension.interval is not None]
    if endless:
        raise ConfigError(
            f"{endless[0]}=interval(...) has no grid: expected choices or a range. "
            "List values, or set sweep.sampler=random or tpe and sweep.n_trials."
        )
    for labels in product(*(dimension.labels for dimension in space)):
        yield dict(zip((dimension.name for dimension in space), labels, strict=True))


def cell_overrides(space: Sequence[Dimension], cell: Mapping[str, Label]) -> list[str]:
    """Overrides of the combination."""
    return [override for dimension in space for override in dimension.overrides(cell[dimension.name])]


def short(name: str, names: Sequence[str]) -> str:
    """Last part of a key, or the full key if another one has the same last part."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def is_excluded(rules: Sequence[Mapping[Any, object]], job: Sequence[str]) -> bool:
    """Returns True if the overrides of `job` match all values of one rule, such as {model: cnn, seed: 1}."""
    values = dict(parsed(override) for override in job if "=" in override)
    return any(rule and _matches(rule, values) for rule in rules)


def refuse_unmatched(rules: Sequence[Mapping[Any, object]], space: Sequence[Dimension]) -> None:
    """Raises ConfigError for a rule that matches no combination. Ranges match all numbers."""
    for rule, part in product(rules, space):
        choices = [dict(map(parsed, choice)) for choice in part.choices]
        wanted = {key: value for key, value in rule.items() if any(key in choice for choice in choices)}
        if not rule or (choices and not any(_matches(wanted, choice) for choice in choices)):
            raise ConfigError(
                f"the rule {dict(rule)} of sweep.exclude matches no job: expected "
                f"{first_few(map(' '.join, part.choices))}, received {wanted}. Change it, or leave it out."
            )


def _matches(rule: Mapping[Any, object], values: Mapping[str, object]) -> bool:
    """Compares values as Hydra parses them: 1e-3 equals 0.001, but the text '1' and true do not equal 1."""
    return all(
        key in values and values[key] == wanted and isinstance(values[key], bool) == isinstance(wanted, bool)
        for key, wanted in rule.items()
    )


@lru_cache(maxsize=10_000)
def parsed(override: str) -> tuple[str, Any]:
    """Returns key and value of an override."""
    return override.partition("=")[0].lstrip("+"), OverridesParser.create().parse_override(override).value()
