"""Models shared by the jobs of a process, so that a training step is traced and compiled only once.

If the config of a job differs from that of an earlier one only in the values of variables, the job builds its model as
usual and assigns the values to the earlier model. Its results are bit for bit identical to those of a separate run.
"""

import gc
import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import keras
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf
from tensorflow.python.framework import ops

from experiments.checkpoints.training_state import assign, everything, values
from experiments.cli.status import Status
from experiments.errors import StoppedRun
from experiments.records import fingerprint
from experiments.runs import assembly
from experiments.runs.assembly import Assemble, Built, TrainingTarget

KEPT = 8
"""Maximum number of shared models."""
LARGEST = 2**30
"""Maximum size of the variables of all shared models, in bytes."""
SEED, LEARNING_RATE = "seed", "optimizer.learning_rate"
OURS = ("experiments.", "keras.")
OUTSIDE_OF_A_STEP = ("sweep", "logging")
CUSTOM = "CustomGradient-"


class _Models(NamedTuple):
    """Models of a job. `head` is the trained part of `full_model`, or the same object."""

    head: keras.Model
    full_model: keras.Model

    @property
    def variables(self) -> list[keras.Variable]:
        return everything(self.head, self.full_model)


_shared: dict[Hashable, _Models] = {}
"""Models by `_key`, the most recently used last."""


@contextmanager
def sharing_models() -> Iterator[Assemble]:
    """Yields a function that builds one job. Its models are shared with later jobs unless it fails.

    A failure may leave a model in the middle of a step.
    """
    used: dict[Hashable, _Models] = {}

    def assemble(cfg: DictConfig, threads: int | None, status: Status) -> Built:
        fresh = assembly.assemble(cfg, threads, status)
        if not _is_shareable(cfg):
            return fresh
        key, made = _key(cfg, fresh), _Models(fresh.target.model, fresh.model)
        used[key] = _with_values_of(made, _shared.pop(key)) if key in _shared else made
        return Built(fresh.splits, used[key].full_model, TrainingTarget(used[key].head, fresh.target.splits))

    try:
        yield assemble
        _share(used)
    except StoppedRun:  # raised at the end of an epoch only
        _share(used)
        raise
    finally:
        release_graph_functions()


def _is_shareable(cfg: DictConfig) -> bool:
    """Returns False for custom components, whose steps may depend on state other than variables.

    Models under a distribution strategy are not shared either, because their variables belong to the strategy.
    """
    inside = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in OUTSIDE_OF_A_STEP])
    return cfg.runtime.strategy == "none" and all(target.startswith(OURS) for target in fingerprint.targets(inside))


def _key(cfg: DictConfig, built: Built) -> Hashable:
    """Key that is equal for models whose steps differ only in the values of variables."""
    spec, found = built.splits.train.spec, fingerprint.values(cfg)
    del found[SEED]
    if isinstance(assembly.schedule(cfg, built.splits, cfg.epochs), float):
        del found[LEARNING_RATE]
    else:  # a schedule object, whose numbers are compiled into the step
        found["total_steps"] = str(cfg.epochs * built.splits.train.steps_per_epoch)
    models = _Models(built.target.model, built.model)
    shapes = tuple((tuple(variable.shape), variable.dtype) for variable in models.variables)
    inputs = spec.input_shape, spec.input_dtype, spec.value_range, spec.num_classes
    # The seed may decide whether the outputs of frozen layers can be cached, and so whether there is a
    # separate head.
    return tuple(sorted(found.items())), inputs, shapes, models.head is models.full_model


def _with_values_of(fresh: _Models, shared: _Models) -> _Models:
    """Assigns the values of the fresh models to the shared ones. Both may contain the same frozen network."""
    for mine, theirs in zip(shared.variables, fresh.variables, strict=True):
        if mine is not theirs:
            assign([mine], values([theirs]))
    return shared


def _share(used: dict[Hashable, _Models]) -> None:
    _shared.update(used)
    while len(_shared) > KEPT or _num_bytes() > LARGEST:
        del _shared[next(iter(_shared))]


def _num_bytes() -> int:
    distinct = {id(variable): variable for models in _shared.values() for variable in models.variables}
    return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in distinct.values())


def release_graph_functions() -> None:
    """Removes the functions that each `optimizer.apply` adds to TensorFlow's gradient registry.

    They keep the whole model in memory, and TensorFlow has no public function to remove them. The next run clears
    Keras's session.
    """
    registry = ops.gradient_registry
    for name in [name for name in registry.list() if name.startswith(CUSTOM)]:
        del registry._registry[name]


@cache
def freeze_imports() -> None:
    """Excludes the imported objects from garbage collection between jobs. Only the first call has an effect."""
    gc.freeze()
