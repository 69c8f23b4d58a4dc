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


@contextmanager
def averaged(model: keras.Model) -> Iterator[list[np.ndarray]]:
    """Exchanges weights and averages during the block, back in an inner block. Yields copies of the weights, if any."""
    # Keras's SwapEMAWeights exchanges by adding and subtracting, which changes the last bits.
    weights = _exchange(model)
    try:
        yield weights
    finally:
        _exchange(model)


def _exchange(model: keras.Model) -> list[np.ndarray]:
    pairs = list(zip(model.trainable_variables, averages(model), strict=False))
    weights = [variable.numpy() for variable, _ in pairs]
    # The averages are zeros until the first update, which mixed_float16 skips while its loss scale is too large.
    if pairs and keras.ops.convert_to_numpy(model.optimizer.iterations) > 0:
        for (variable, average), value in zip(pairs, weights, strict=True):
            variable.assign(average.numpy())
            average.assign(value)
    return weights
