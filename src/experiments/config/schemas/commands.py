"""Types of the keys that belong to no group."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from experiments.config.fields import above, at_least, auto_or_bool, first_and_last, one_of, sizes


@dataclass
class Monitor:
    metric: str = MISSING
    mode: str = one_of("min", "max")
    max_loss: float | None = above(0)


@dataclass
class Checkpoint:
    max_to_keep: int = at_least(2)
    name: str = MISSING
    every_epoch: bool | str = auto_or_bool()
    every_n_steps: int | None = at_least(1)
    every_n_minutes: float | None = above(0)
    upload_every_n_minutes: float | None = above(0)


@dataclass
class TensorBoard:
    every_n_steps: int | None = at_least(1)
    histogram_every_n_epochs: int = at_least(0)
    graph: bool = MISSING
    images: int = at_least(0)
    profile_steps: list[int] | None = first_and_last()  # noqa: RUF009 -- a field, made anew for each class


@dataclass
class Sweep:
    sampler: Any = MISSING
    n_trials: int = at_least(1)
    zip: list[list[str]] = MISSING
    exclude: list[dict[str, Any]] = MISSING
    repeats: int = at_least(1)
    workers: int = at_least(1)
    preview: bool = MISSING
    resume: str | None = MISSING
    reuse: bool = MISSING
    pruner: Any = MISSING
    max_retries: int = at_least(0)
    max_failures: int | None = at_least(1)
    job_timeout: float | None = above(0)
    objectives: Any = MISSING
    storage: str | None = MISSING


@dataclass
class Runtime:
    precision: str = one_of("float32", "mixed_bfloat16", "mixed_float16")
    deterministic: bool | str = auto_or_bool()
    threads: int | None = at_least(1)
    strategy: str = one_of("none", "mirrored")
    device: str = one_of("auto", "cpu", "gpu")


@dataclass
class Evaluate:
    run_id: str | None = MISSING
    checkpoint: str = MISSING
    split: str = one_of("train", "validation", "test")
    format: str = one_of("table", "csv", "json")
    data: Any = None
    logging: Any = MISSING


@dataclass
class Predict:
    run_id: str | None = MISSING
    checkpoint: str = MISSING
    path: str = MISSING
    image_size: list[int] = sizes(2)  # noqa: RUF009 -- a field, made anew for each class
    format: str = one_of("table", "csv", "json")
    model: Any = None
    logging: Any = MISSING


@dataclass
class Inspect:
    output: str | None = MISSING
    decode: bool = MISSING
    samples: int = at_least(0)
    data: Any = MISSING


@dataclass
class Doctor:
    folders: list[str] = MISSING
    sync: bool = MISSING
    cache_dir: str = MISSING
    prune: bool = MISSING
    older_than_days: float = at_least(0)
    fix: bool = MISSING
    format: str = one_of("table", "csv", "json")
    logging: Any = MISSING


@dataclass
class Config:
    seed: int = at_least(0)
    epochs: int = at_least(1)
    progress: str = one_of("auto", "bar", "plain", "none")
    resume: str | None = MISSING
    resume_allow: list[str] = MISSING
    monitor: Monitor = field(default_factory=Monitor)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tensorboard: TensorBoard = field(default_factory=TensorBoard)
    runtime: Runtime = field(default_factory=Runtime)
    sweep: Sweep = field(default_factory=Sweep)
    data: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    loss: Any = MISSING
    metrics: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    loop: Any = MISSING
    logging: Any = MISSING
