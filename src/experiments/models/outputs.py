"""Meaning of a model's outputs."""

from collections.abc import Iterable

import keras
import numpy as np

from experiments.errors import ConfigError

ONE = "one output"  # for each example, which may be a logit or a probability


def meaning_of_outputs(model: keras.Model, input_shape: tuple[int, ...], input_dtype: str) -> str:
    """Returns "probabilities" if the outputs of three inputs are not negative and sum to 1, else "logits", or ONE."""
    # Values are compared, because a subclassed model does not name its last layer.
    noise = np.random.default_rng(0).integers(0, 256, (1, *input_shape))
    inputs = np.concatenate([np.zeros_like(noise), noise, np.full_like(noise, 255)]).astype(input_dtype)
    outputs = np.asarray(keras.ops.cast(model(inputs, training=False), "float32"))
    # A sum of bfloat16, which has three digits, differs more from 1 than one of float32.
    tolerance = 1e-4 if keras.config.dtype_policy().compute_dtype == "float32" else 1e-2
    # A model that standardizes each example has no finite outputs for constant ones.
    finite = outputs[np.isfinite(outputs).all(axis=-1)]
    is_softmax = finite.size and np.all(finite >= 0) and np.all(abs(finite.sum(axis=-1) - 1) < tolerance)
    return ONE if outputs.shape[-1] == 1 else "probabilities" if is_softmax else "logits"


def check_outputs(parts: Iterable[object], model: keras.Model, input_shape: tuple[int, ...], input_dtype: str) -> None:
    """Raises ConfigError if one of `parts`, loss and metrics, expects other outputs than those of the model."""
    received = meaning_of_outputs(model, input_shape, input_dtype)
    for part in parts:
        name, from_logits = type(part).__name__, getattr(part, "from_logits", None)
        expected = received if from_logits is None else "logits" if from_logits else "probabilities"
        if received == ONE:
            by_class = name.startswith("Sparse") or type(part).__module__.startswith("experiments.")
            expected = "one output for each class" if by_class else ONE
        if expected != received:
            raise ConfigError(
                f"{name} expects {expected}, received {received} from the model {model.name}. Change the last layer of "
                "the model or its activation, or set another loss, other metrics, or from_logits of these."
            )
