"""The sweeper behind `-m`; Hydra takes one from this namespace only. The work is done in `experiments.sweeps`."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ExperimentsSweeperConf:
    """params: key -> values to vary, as recipes of conf/experiment carry them."""

    _target_: str = "hydra_plugins.experiments_sweeper.ExperimentsSweeper"
    params: dict[str, Any] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="experiments", node=ExperimentsSweeperConf)


class ExperimentsSweeper(Sweeper):
    """Plans every job before the first one starts, queues them, and asks the launcher for workers."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self._params = params or {}

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,  # noqa: ARG002
        config: DictConfig,
    ) -> None:
        # Workers call the training by themselves, as they need more of its result than Hydra hands on.
        self._context, self._config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        from experiments.sweeps.sweep import sweep

        params = [f"{key}={value}" for key, value in self._params.items()]
        return sweep([*params, *arguments], self._config, self._context)
