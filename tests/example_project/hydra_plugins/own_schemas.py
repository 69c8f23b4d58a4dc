"""Types of custom options. Hydra imports every module of a folder `hydra_plugins` before it reads any YAML."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from experiments.config.fields import at_least


@dataclass
class FocalLoss:
    _target_: str = MISSING
    gamma: float = at_least(0, "How much less easy examples count.")


ConfigStore.instance().store(group="schema/loss", name="focal", node=FocalLoss)
