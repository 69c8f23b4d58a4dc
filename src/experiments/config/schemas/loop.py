"""Types of the `loop` group."""

from dataclasses import dataclass

from omegaconf import MISSING

from experiments.config.fields import Target, at_least


@dataclass
class Fit(Target):
    steps_per_execution: int = at_least(1)
    jit_compile: bool = MISSING


@dataclass
class Tape(Fit):
    train_step: str = MISSING


SCHEMAS = {"fit": Fit, "tape": Tape}
