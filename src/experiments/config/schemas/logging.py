"""Types of the `logging` group: `tracker` is what gets built, the other keys are what people type."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from experiments.config.fields import above, at_least


@dataclass
class MlflowTracker:
    _target_: str = MISSING
    tracking_uri: str = MISSING
    experiment_name: str = MISSING
    tags: dict[str, str] = MISSING
    flush_timeout: float = at_least(0)
    delivery_interval: float = above(0)
    system_metrics: bool = MISSING
    system_metrics_interval: float = above(0)


@dataclass
class NullTracker:
    _target_: str = MISSING


@dataclass
class Mlflow:
    tracking_uri: str = MISSING
    experiment_name: str = MISSING
    run_name: str | None = MISSING
    every_n_steps: int = at_least(1)
    log_model: bool = MISSING
    log_figures: bool = MISSING
    tags: dict[str, str] = MISSING
    flush_timeout: float = at_least(0)
    delivery_interval: float = above(0)
    system_metrics: bool = MISSING
    system_metrics_interval: float = above(0)
    tracker: MlflowTracker = field(default_factory=MlflowTracker)


@dataclass
class Nothing:
    tracking_uri: str | None = MISSING
    experiment_name: str | None = MISSING
    run_name: str | None = MISSING
    every_n_steps: int = at_least(1)
    log_model: bool = MISSING
    log_figures: bool = MISSING
    tags: dict[str, str] = MISSING
    tracker: NullTracker = field(default_factory=NullTracker)


SCHEMAS: dict[str, type] = {"mlflow": Mlflow, "none": Nothing}
