"""Models that jobs of one process share, so that a step is traced and compiled once; and what no job needs any more.

A job whose config differs from an earlier one's in nothing but what variables hold builds its model as ever, and hands
the values over to the earlier one's: the bits are those of a run of its own.
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
LARGEST = 2**30
"""Bytes of the variables of all that are kept."""
SEED, LEARNING_RATE = "seed", "optimizer.learning_rate"
OURS = ("experiments.", "keras.")
OUTSIDE_OF_A_STEP = ("sweep", "logging")
CUSTOM = "CustomGradient-"


class _Models(NamedTuple):
    """head: what trains, a part of `full_model` or the same."""

    head: keras.Model
    full_model: keras.Model

    @property
    def variables(self) -> list[keras.Variable]:
        return everything(self.head, self.full_model)


_shared: dict[Hashable, _Models] = {}
"""The one used last comes last."""


@contextmanager
def sharing_models() -> Iterator[Assemble]:
    """What builds one job, whose model is kept when it ends well: a failure may leave one in the middle of a step."""
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
    except StoppedRun:  # at the end of an epoch
        _share(used)
        raise
    finally:
        release_graph_functions()


def _is_shareable(cfg: DictConfig) -> bool:
    """A part of a person's own may hold in a step what its variables do not; a strategy's variables are its own."""
    inside = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in OUTSIDE_OF_A_STEP])
    return cfg.runtime.strategy == "none" and all(target.startswith(OURS) for target in fingerprint.targets(inside))


def _key(cfg: DictConfig, built: Built) -> Hashable:
    """Equal for models whose steps are the same but for what their variables hold."""
    spec, found = built.splits.train.spec, fingerprint.values(cfg)
    del found[SEED]
    if isinstance(assembly.schedule(cfg, built.splits, cfg.epochs), float):
        del found[LEARNING_RATE]
    else:  # an object, whose numbers are in the step
        found["total_steps"] = str(cfg.epochs * built.splits.train.steps_per_epoch)
    models = _Models(built.target.model, built.model)
    shapes = tuple((tuple(variable.shape), variable.dtype) for variable in models.variables)
    inputs = spec.input_shape, spec.input_dtype, spec.num_classes
    # Whether features of the frozen part are the same in any batch, and so are kept, may depend on the seed.
    return tuple(sorted(found.items())), inputs, shapes, models.head is models.full_model


def _with_values_of(fresh: _Models, shared: _Models) -> _Models:
    """The shared models, with the values of the fresh ones; a frozen network may be a part of both."""
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
    """Every `optimizer.apply` leaves functions in TensorFlow's registry of gradients, and with them the whole model.

    There is no public way to take them out. The next run clears Keras's session.
    """
    registry = ops.gradient_registry
    for name in [name for name in registry.list() if name.startswith(CUSTOM)]:
        del registry._registry[name]


@cache
def freeze_imports() -> None:
    """Once, before the first job: the collections between jobs need not look at what was imported."""
    gc.freeze()
