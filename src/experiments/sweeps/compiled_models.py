"""Models that jobs of one process share, so that a step is traced and compiled once.

A job whose config differs from an earlier one's in nothing but what variables hold builds its model as ever, and hands
the values over to the earlier one's: the bits are those of a run of its own.
"""

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from omegaconf import DictConfig

from experiments import assembly, fingerprint
from experiments.assembly import Assemble, Built
from experiments.errors import StoppedRun
from experiments.stages import Show
from experiments.trained_part import TrainedPart
from experiments.training_state import assign, everything, values

KEPT = 8
LARGEST = 256 * 2**20
"""Bytes of the variables of all that are kept; one is kept, whatever its size."""
SEED, LEARNING_RATE = "seed", "optimizer.learning_rate"
OURS = ("experiments.", "keras.")

_kept: dict[Hashable, Built] = {}
"""The one used last comes last."""


@contextmanager
def shared() -> Iterator[Assemble]:
    """What builds one job, whose model is kept when it ends well: a failure may leave one in the middle of a step."""
    lent: dict[Hashable, Built] = {}

    def assemble(cfg: DictConfig, threads: int | None, show: Show) -> Built:
        fresh = assembly.assemble(cfg, threads, show)
        if not _is_shareable(cfg, fresh):
            return fresh
        key = _key(cfg, fresh)
        lent[key] = built = _given(_kept.pop(key), fresh) if key in _kept else fresh
        return built

    try:
        yield assemble
    except StoppedRun:  # at the end of an epoch
        _keep(lent)
        raise
    _keep(lent)


def _is_shareable(cfg: DictConfig, built: Built) -> bool:
    """A part of a person's own may hold in a step what its variables do not; a strategy's variables are its own."""
    one_device = built.model.distribute_strategy.num_replicas_in_sync == 1
    return one_device and all(target.startswith(OURS) for target in fingerprint.targets(cfg))


def _key(cfg: DictConfig, built: Built) -> Hashable:
    """Equal for models whose steps are the same but for what their variables hold."""
    spec, found = built.splits.train.spec, fingerprint.values(cfg)
    del found[SEED]
    if isinstance(assembly.schedule(cfg, built.splits, cfg.epochs), float):
        del found[LEARNING_RATE]
    else:  # an object, whose numbers are in the step
        found["total_steps"] = str(cfg.epochs * built.splits.train.steps_per_epoch)
    shapes = tuple((tuple(variable.shape), variable.dtype) for variable in _variables(built))
    return tuple(sorted(found.items())), spec.input_shape, spec.input_dtype, spec.num_classes, shapes


def _given(kept: Built, fresh: Built) -> Built:
    """The kept model, as the fresh one is; a frozen network may be a part of both."""
    pairs = zip(_variables(kept), _variables(fresh), strict=True)
    mine, theirs = zip(*((mine, theirs) for mine, theirs in pairs if mine is not theirs), strict=True)
    assign(mine, values(theirs))
    return Built(fresh.splits, kept.model, TrainedPart(kept.part.model, fresh.part.splits))


def _variables(built: Built) -> list[Any]:
    return everything(built.part.model, built.model)


def _keep(lent: dict[Hashable, Built]) -> None:
    _kept.update(lent)
    while len(_kept) > 1 and (len(_kept) > KEPT or sum(map(_size, _kept.values())) > LARGEST):
        del _kept[next(iter(_kept))]


def _size(built: Built) -> int:
    """In bytes."""
    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in _variables(built))
