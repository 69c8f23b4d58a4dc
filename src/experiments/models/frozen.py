"""Splits a model after its frozen layers, so that the outputs of these layers can be computed once."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.errors import ModelError
from experiments.models.network_cache import digest

PROBES = 8
"""Number of random inputs that identify the frozen layers and verify the split."""


class FrozenModel(NamedTuple):
    """A model in two parts: `features`, raw inputs -> [batch, *shape], and `head`, features -> outputs of the model.

    Both consist of the model's own layers, so training `head` trains the model. `features` is compiled, so that it
    returns the same bits as the training step: TensorFlow's graph optimizer folds batch normalization into
    convolutions, which changes the last bits.
    `identity` is the SHA-256 of the frozen weights and of the features of a few random inputs.
    `exact` is True if the features of an input are bit for bit identical in any batch.
    """

    features: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]
    head: keras.Model
    identity: str
    exact: bool


def split_frozen(model: keras.Model, dtype: str) -> FrozenModel:
    """Splits a built functional model that is a chain of layers. `dtype` is the type of its raw inputs.

    Raises ModelError with the reason if the model is not a chain or does not begin with frozen layers.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    frozen = next((place for place, layer in enumerate(layers) if not _is_constant(layer)), len(layers))
    if not any(layer.weights for layer in layers[:frozen]):
        raise ModelError(f"{model.name} has no frozen layers at its start, or they draw random numbers")
    probes = np.random.default_rng(0).integers(0, 256, (PROBES, *model.input_shape[1:])).astype(dtype)
    not_a_chain = f"{model.name} is not a chain of layers, each applied to the output of the previous one"
    try:
        part = _frozen_part(layers[:frozen], probes)
        head = _chained(layers[frozen:], part.shape, f"{model.name}_head")
        same = np.array_equal(_outputs(head, part.outputs), _outputs(model, probes))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{not_a_chain}: {error}") from error
    if not same:
        raise ModelError(not_a_chain)
    return FrozenModel(part.features, part.shape, head, part.identity, part.exact)


class _FrozenPart(NamedTuple):
    """Frozen layers with their results for the probes. `outputs` are the results of the layers when called eagerly."""

    chain: keras.Model
    features: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]
    outputs: NDArray[np.generic]
    identity: str
    exact: bool


_known: dict[Hashable, _FrozenPart] = {}
"""At most one entry, the last. Runs of a process mostly share frozen layers, and computing an entry takes seconds."""


def _frozen_part(layers: Sequence[keras.Layer], probes: NDArray[np.generic]) -> _FrozenPart:
    weights = digest(weight for layer in layers for weight in layer.weights)
    key = (weights, probes.shape, probes.dtype.str, *map(_layer_key, layers))
    if key not in _known or digest(_known[key].chain.weights) != weights:
        chain = _chained(layers, probes.shape[1:], "features")
        features = _compiled(chain, probes.dtype)
        compiled = np.asarray(features(probes))
        one_by_one = np.concatenate([features(probe[None]) for probe in probes])
        exact = np.array_equal(one_by_one, compiled)
        identity = hashlib.sha256(compiled.tobytes() + weights.encode()).hexdigest()
        _known.clear()
        _known[key] = _FrozenPart(chain, features, chain.output_shape[1:], _outputs(chain, probes), identity, exact)
    return _known[key]


def _layer_key(layer: keras.Layer) -> Hashable:
    """Returns equal keys for equal layers. A custom layer is its own key, because its config may be incomplete."""
    if isinstance(layer, keras.Model) or not type(layer).__module__.startswith(("keras.", "experiments.")):
        key: Hashable = layer
        return key
    return type(layer), repr({**layer.get_config(), "name": None})


def _is_constant(layer: keras.Layer) -> bool:
    """Returns True if only fixed weights decide the layer's output.

    Dropout counts as random even at rate 0, so that heads that differ in their dropout rate share all layers before it.
    """
    # `variables` also contains the seeds of random layers, which `weights` does not.
    is_random = isinstance(layer, keras.layers.Dropout) or len(layer.variables) > len(layer.weights)
    return not layer.trainable_weights and not is_random


def _chained(layers: Sequence[keras.Layer], shape: Sequence[int], name: str) -> keras.Model:
    inputs = keras.Input(tuple(shape))
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def _compiled(chain: keras.Model, dtype: np.dtype[Any]) -> Callable[[Any], tf.Tensor]:
    batch = tf.TensorSpec(chain.input_shape, dtype)
    return tf.function(lambda inputs: chain(inputs, training=False), [batch], autograph=False)  # type: ignore[no-any-return]


def _outputs(model: keras.Model, inputs: Any) -> NDArray[np.generic]:
    return np.asarray(model(inputs, training=False))
