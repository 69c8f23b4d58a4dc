"""Types of the data options."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from experiments.config.fields import Target, at_least, auto_or_at_least, fraction, one_of, sizes


@dataclass
class Batches(Target):
    batch_size: int = at_least(1)
    shuffle: bool = MISSING
    sampling: str = one_of("shuffled", "balanced")
    class_weight: Any = MISSING
    num_parallel_calls: int | str = auto_or_at_least(1)
    prefetch: int | str = auto_or_at_least(0)
    limit: int | None = at_least(1)
    validation_fraction: float = fraction()


@dataclass
class Files(Batches):
    path: str = MISSING
    image_size: list[int] = sizes(2)  # noqa: RUF009 -- a field, made anew for each class
    channels: int = one_of(1, 3)
    antialias: bool = MISSING
    cache: str = one_of("none", "memory", "disk")
    cache_dir: str = MISSING
    cache_required: bool = MISSING
    on_corrupt: str = one_of("error", "skip")
    allow_leakage: bool = MISSING
    rescan: bool = MISSING


@dataclass
class CatsDogs(Files):
    url: str = MISSING
    sha256: str = MISSING


@dataclass
class CatsDogsSynthetic(Files):
    num_examples: int = at_least(60)
    draw_size: int = at_least(16)
    draw_seed: int = at_least(0)


@dataclass
class Npz(Batches):
    path: str = MISSING


@dataclass
class Mnist(Npz):
    url: str = MISSING
    sha256: str = MISSING


@dataclass
class Digits(Batches):
    test_fraction: float = fraction()


SCHEMAS: dict[str, type] = {
    "image_folder": Files,
    "cats_dogs": CatsDogs,
    "cats_dogs_synthetic": CatsDogsSynthetic,
    "mnist": Mnist,
    "digits": Digits,
    "npz": Npz,
}
