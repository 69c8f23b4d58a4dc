"""Meaning of a model's outputs."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from experiments.errors import ConfigError

ONE = "one output"  # for each example, which may be a logit or a probability
_TOP_K = (keras.metrics.SparseTopKCategoricalAccuracy, keras.metrics.TopKCategoricalAccuracy)
EACH = "independent probabilities"  # of a sigmoid, which do not sum to 1


def meaning_of_outputs(model: keras.Model, input_shape: tuple[int, ...], input_dtype: str) -> str:
    """Returns ONE, "probabilities" if the outputs of three inputs are not negative and sum to 1, EACH, or "logits"."""
    return _meaning(model, _outputs(model, input_shape, input_dtype), tf.TensorSpec((None, *input_shape), input_dtype))


def _outputs(model: keras.Model, input_shape: tuple[int, ...], input_dtype: str, highest: int = 255) -> np.ndarray:
    """Returns the outputs for three inputs of values from 0 to `highest`: zeros, noise, and the highest value."""
    noise = np.random.default_rng(0).integers(0, highest, (1, *input_shape), endpoint=True)
    inputs = np.concatenate([np.zeros_like(noise), noise, np.full_like(noise, highest)]).astype(input_dtype)
    try:
        return np.asarray(keras.ops.cast(model(inputs, training=False), "float32"))
    except tf.errors.InvalidArgumentError:  # an embedding accepts only numbers below the size of its vocabulary
        if highest > 1:
            return _outputs(model, input_shape, input_dtype, 1)
        raise


def _meaning(model: keras.Model, outputs: np.ndarray, inputs: tf.TensorSpec) -> str:
    # Values are compared, because a subclassed model does not name its last layer.
    # A sum of bfloat16, which has three digits, differs more from 1 than one of float32.
    tolerance = 1e-4 if keras.config.dtype_policy().compute_dtype == "float32" else 1e-2
    # A model that standardizes each example has no finite outputs for constant ones.
    finite = outputs[np.isfinite(outputs).all(axis=-1)]
    positive = finite.size and np.all(finite >= 0)
    is_softmax = positive and np.all(abs(finite.sum(axis=-1) - 1) < tolerance)
    # Outputs of other layers may lie in 0..1 by chance.
    within = positive and np.all(finite <= 1)
    other = EACH if within and (_ends_in_sigmoid(model) or _last_operation(model, inputs) == "Sigmoid") else "logits"
    return ONE if outputs.shape[-1] == 1 else "probabilities" if is_softmax else other


def _ends_in_sigmoid(layer: keras.Layer) -> bool:
    inner = getattr(layer, "operations", None) or getattr(layer, "layers", None)
    name = str(getattr(getattr(layer, "activation", layer), "__name__", type(layer).__name__))
    return _ends_in_sigmoid(inner[-1]) if inner else "sigmoid" in name.lower()


def _last_operation(model: keras.Model, inputs: tf.TensorSpec) -> str:
    """Returns the type of the operation that computes the outputs, which no layer of a subclassed model may name."""
    traced = tf.function(lambda batch: model(batch, training=False), [inputs], autograph=False)
    last = traced.get_concrete_function().outputs[0].op
    while last.type in ("Identity", "Cast", "Reshape"):
        last = last.inputs[0].op
    return str(last.type)


def check_outputs(
    parts: Iterable[object], model: keras.Model, input_shape: tuple[int, ...], input_dtype: str, num_classes: int = 2
) -> None:
    """Raises ConfigError if one of `parts`, loss and metrics, expects other outputs than those of the model."""
    outputs = _outputs(model, input_shape, input_dtype)
    received = _meaning(model, outputs, tf.TensorSpec((None, *input_shape), input_dtype))
    count = outputs.shape[-1]
    for part in parts:
        name, from_logits = type(part).__name__, getattr(part, "from_logits", None)
        expected = received if from_logits is None else "logits" if from_logits else "probabilities"
        if received == ONE:
            by_class = name.startswith("Sparse") or type(part).__module__.startswith("experiments.")
            by_class |= from_logits is not None and num_classes > 2  # a cross-entropy of 0 and 1
            expected = "one output for each class" if by_class else ONE
        if expected != received:
            raise ConfigError(
                f"{name} expects {expected}, received {received} from the model {model.name}. Change the last layer of "
                "the model or its activation, or set another loss, other metrics, or from_logits of these."
            )
        if isinstance(part, _TOP_K) and part.k >= count:
            raise ConfigError(
                f"metrics.{part.name}.k={part.k} is always reached with {count} classes, so the metric is always 1: "
                f"expected less than {count}. Lower metrics.{part.name}.k, or leave {part.name} out of metrics."
            )
