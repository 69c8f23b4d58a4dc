"""Types of the `logging` group: the tracker is built from its keys, but for those that the run reads itself."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, above, at_least


@dataclass
class Untracked(Target):
    tracking_uri: str | None = MISSING
    experiment_name: str | None = MISSING
    run_name: str | None = MISSING
    every_n_steps: int = at_least(1)
    log_model: bool = MISSING
    log_figures: bool = MISSING
    tags: dict[str, str] = MISSING


@dataclass
class Mlflow(Untracked):
    tracking_uri: str = MISSING
    experiment_name: str = MISSING
    flush_timeout: float = at_least(0)
    delivery_interval: float = above(0)
    system_metrics: bool = MISSING
    system_metrics_interval: float = above(0)


SCHEMAS: dict[str, type] = {"mlflow": Mlflow, "none": Untracked}
