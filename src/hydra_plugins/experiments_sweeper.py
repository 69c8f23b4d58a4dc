"""Hydra sweeper for `-m`, implemented in `experiments.sweeps`. Hydra loads sweepers from `hydra_plugins` only."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ExperimentsSweeperConf:
    """Config of the sweeper. `params` maps keys to swept values, and is set by recipes in conf/experiment."""

    _target_: str = "hydra_plugins.experiments_sweeper.ExperimentsSweeper"
    params: dict[str, Any] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="experiments", node=ExperimentsSweeperConf)


class ExperimentsSweeper(Sweeper):
    """Sweeper that plans all jobs before the first one starts, queues them, and launches workers."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self._params = params or {}

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,  # noqa: ARG002
        config: DictConfig,
    ) -> None:
        # Workers call the training directly instead of `task_function`, because they need its complete result.
        self._context, self._config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        from experiments.sweeps.sweep import sweep

        params = [f"{key}={value}" for key, value in self._params.items()]
        return sweep([*params, *arguments], self._config, self._context)
