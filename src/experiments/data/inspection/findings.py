"""Statistics and problems of a data set: counts, sizes, corrupt files, duplicates and unusual images."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.cli.safe_text import visible
from experiments.data.base import DataSpec, Splits
from experiments.data.images.image_source import FileSource
from experiments.data.images.scan import Record
from experiments.data.pipeline import IndexedSplit, Source, without_autotune
from experiments.errors import pluralized

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
_CHUNK = 256
_SMALL = 4  # times smaller than the model's input
_ODD = {
    "Wrong extension": "read according to the content, not the extension",
    "Not RGB": "converted when decoded",
    "Rotated by EXIF": "given to the model upright",
    "Tiny": "a side is less than a quarter of {1} x {0}, so most pixels are interpolated",
}


@dataclass(frozen=True)
class Example:
    """An example: its position in a split, and in `content` a hash of its inputs."""

    split: str
    position: int
    name: str
    label: int
    content: str


@dataclass(frozen=True)
class Finding:
    """A property or problem that some examples share.

    title: a few words; meaning: its consequence; details: one text per example or group of examples;
    examples: those that have a picture; wrong: True if it harms training or its metrics.
    """

    title: str
    meaning: str
    details: tuple[str, ...]
    examples: tuple[Example, ...]
    wrong: bool


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection; `specs`, `sources` and `examples` are by split name.

    sizes: (width, height) of every upright image; empty if the inputs are not images.
    """

    specs: Mapping[str, DataSpec]
    sources: Mapping[str, Source]
    examples: Mapping[str, tuple[Example, ...]]
    sizes: tuple[tuple[int, int], ...]
    findings: tuple[Finding, ...]


def inspect_splits(splits: Splits, *, decode: bool) -> Inspection:
    """Inspects every example of each split that gives access to single examples (`IndexedSplit`).

    decode: also decodes every image file, which finds corrupt pixels that header and end marker do not show.
    """
    named = splits.named()
    sources = {name: split.source for name, split in named.items() if isinstance(split, IndexedSplit)}
    examples = {name: tuple(_examples(name, source)) for name, source in sources.items()}
    files = {name: source for name, source in sources.items() if isinstance(source, FileSource)}
    findings = [*_of_files(files, examples, decode), *_duplicates(examples, splits.train.spec.class_names)]
    return Inspection(
        specs={name: split.spec for name, split in named.items()},
        sources=sources,
        examples=examples,
        sizes=tuple(_sizes(sources)),
        findings=tuple(finding for finding in findings if finding.details),
    )


def upright_size(record: Record) -> tuple[int, int]:
    """Returns (width, height) after the rotation that EXIF specifies."""
    header = record.header
    return (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)


def _sizes(sources: Mapping[str, Source]) -> Iterator[tuple[int, int]]:
    for source in sources.values():
        if isinstance(source, FileSource):
            yield from map(upright_size, source.records)
        elif len(source.spec.input_shape) == 3:
            height, width, _ = source.spec.input_shape
            yield from [(width, height)] * source.spec.num_examples


def _examples(split: str, source: Source) -> Iterator[Example]:
    if isinstance(source, FileSource):
        for position, record in enumerate(source.records):
            yield Example(split, position, record.path, record.label, record.sha256)
        return
    position = 0
    batches = source.batches(np.arange(source.spec.num_examples), _CHUNK, int(tf.data.AUTOTUNE))
    for batch in without_autotune(batches).as_numpy_iterator():
        for values in batch:
            content = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
            yield Example(split, position, source.names[position], int(source.labels[position]), content)
            position += 1


def _of_files(
    files: Mapping[str, FileSource], examples: Mapping[str, Sequence[Example]], decode: bool
) -> Iterator[Finding]:
    pairs = [pair for name, source in files.items() for pair in zip(examples[name], source.records, strict=True)]
    if not files:
        return
    source = next(iter(files.values()))
    damaged = [str(damage) for source in files.values() for damage in source.skipped]
    yield Finding("Corrupt", "stops training, or is left out by data.on_corrupt=skip", tuple(damaged), (), wrong=True)
    if decode:
        inside = tuple(name for source in files.values() for name in source.unreadable_examples())
        yield Finding(
            "Corrupt pixels", "stops training when it is decoded: replace or remove it", inside, (), wrong=True
        )
    odd = [(one, _odd(record, source.decoder.image_size)) for one, record in pairs]
    for title, meaning in _ODD.items():
        found = [(one, f"{one.name} ({details[title]})") for one, details in odd if details[title]]
        shown = meaning.format(*source.decoder.image_size)
        yield Finding(title, shown, tuple(detail for _, detail in found), tuple(one for one, _ in found), wrong=False)
    others = tuple(visible(f"{path} ({reason})") for path, reason in sorted(source.left_out.items()))
    yield Finding("Not used", "left out by training too", others, (), wrong=False)


def _odd(record: Record, size: tuple[int, int]) -> dict[str, str]:
    """Returns the detail of each of `_ODD`, empty for a usual image. `size` is the height and width of inputs."""
    header, (width, height) = record.header, upright_size(record)
    extension = _FORMATS[PurePosixPath(record.path).suffix.lower()]
    return {
        "Wrong extension": f"is {header.format}" if header.format != extension else "",
        "Not RGB": header.mode if header.mode != "RGB" else "",
        "Rotated by EXIF": f"orientation {header.orientation}" if header.orientation > 1 else "",
        "Tiny": f"{header.width} x {header.height}" if width * _SMALL < size[1] or height * _SMALL < size[0] else "",
    }


def _duplicates(examples: Mapping[str, Sequence[Example]], class_names: Sequence[str]) -> Iterator[Finding]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in (one for split in examples.values() for one in split):
        groups[example.content].append(example)
    equal = [group for group in groups.values() if len(group) > 1]
    across = [group for group in equal if len({one.split for one in group}) > 1]
    conflicting = [group for group in equal if len({one.label for one in group}) > 1]
    within = [group for group in equal if max(Counter(one.split for one in group).values()) > 1]
    for title, meaning, found in (
        ("In several splits", "scores on training examples are misleading", across),
        ("In several classes", "no model can predict all of them", conflicting),
        ("More than once in a split", "counts several times", within),
    ):
        details = tuple(" = ".join(f"{one.name} ({class_names[one.label]})" for one in group) for group in found)
        shown = tuple(one for group in found for one in group[:2])
        yield Finding(title, meaning, details, shown, wrong=found is not within)


def size_summary(sizes: Sequence[tuple[int, int]]) -> str:
    """Describes the smallest, median and largest size by area in one line."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    three = (ordered[at] for at in (0, len(ordered) // 2, -1))
    smallest, middle, largest = (f"{width} x {height}" for width, height in three)
    if smallest == largest:
        return f"every one is {middle} pixels"
    return f"{pluralized(len(set(sizes)), 'different size')}: {smallest} to {largest} pixels, median {middle}"


def spread_of(examples: Sequence[Example], label: int, count: int) -> list[Example]:
    """Returns at most `count` examples of a class, evenly spaced in their order."""
    members = [example for example in examples if example.label == label]
    places: NDArray[np.int64] = np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(np.int64)
    return [members[place] for place in places]
