"""Moving averages of the weights, which an optimizer with `use_ema=true` updates at each step."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


def averages(model: keras.Model) -> list[keras.Variable]:
    """Returns the averages of the trainable variables, in their order; [] if the optimizer keeps none."""
    # The wrapper of mixed_float16 has a `use_ema` of its own, which is always False.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # Keras offers no public access; its own callback SwapEMAWeights reads this attribute.
    return list(optimizer._model_variables_moving_average) if optimizer.use_ema else []


def finalize(model: keras.Model) -> None:
    """Leaves the averages in the place of the weights, as Keras does at the end of `fit`."""
    if not averages(model) or not _before_first_update(model):
        model.optimizer.finalize_variable_values(model.trainable_variables)


def _before_first_update(model: keras.Model) -> bool:
    """Returns True while averages are zeros. mixed_float16 skips updates as long as its loss scale is too large."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


@contextmanager
def averaged(model: keras.Model) -> Iterator[list[np.ndarray]]:
    """Exchanges weights and averages during the block. Yields copies of the weights; [] if there are no averages.

    A block inside of another one exchanges them again, so that the weights are in their own place. Keras's
    SwapEMAWeights exchanges by adding and subtracting, which changes the last bits.
    """
    weights = _exchange(model)
    try:
        yield weights
    finally:
        _exchange(model)


def _exchange(model: keras.Model) -> list[np.ndarray]:
    kept = averages(model)
    if not kept or _before_first_update(model):
        return []
    weights = [variable.numpy() for variable in model.trainable_variables]
    for variable, average, value in zip(model.trainable_variables, kept, weights, strict=True):
        variable.assign(average.numpy())
        average.assign(value)
    return weights
