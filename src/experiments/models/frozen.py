"""Splits a model where its frozen layers end, so that their outputs can be computed once."""

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


class FrozenModel(NamedTuple):
    """features: raw inputs -> outputs of the frozen layers, [batch, *shape]; head: those outputs -> the model's own.

    Both are made of the model's layers, so training `head` trains the model. `features` is one compiled graph, as a
    training step is: its optimiser folds batch norm into convolutions, which changes last bits.
    identity: SHA-256 over the frozen weights and what they make of a few drawn inputs.
    exact: whether an input's features are the same bits in any batch.
    """

    features: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]
    head: keras.Model
    identity: str
    exact: bool


def split_frozen(model: keras.Model, dtype: str) -> FrozenModel:
    """Splits a built functional model that is a chain of layers; dtype: of its raw inputs.

    Raises ModelError with the reason where no frozen layer with weights stands at its start.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    frozen = next((place for place, layer in enumerate(layers) if not _is_constant(layer)), len(layers))
    if not any(layer.weights for layer in layers[:frozen]):
        raise ModelError(f"{model.name} does not begin with frozen layers that draw no random numbers")
    probes = np.random.default_rng(0).integers(0, 256, (PROBES, *model.input_shape[1:])).astype(dtype)
    not_a_chain = f"{model.name} is not a chain of layers, each fed by the one before"
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
    """What frozen layers make of the probes; outputs: step by step, not compiled."""

    chain: keras.Model
    features: Callable[[Any], tf.Tensor]
    shape: tuple[int, ...]
    outputs: NDArray[np.generic]
    identity: str
    exact: bool


_known: dict[Hashable, _FrozenPart] = {}
"""The last ones alone: runs of one process mostly share their frozen layers, and asking takes seconds."""


def _frozen_part(layers: Sequence[keras.Layer], probes: NDArray[np.generic]) -> _FrozenPart:
    weights = digest(weight for layer in layers for weight in layer.weights)
    key = (weights, probes.shape, probes.dtype.str, *map(_described, layers))
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


def _described(layer: keras.Layer) -> Hashable:
    """Equal for layers that compute the same: a person's own layer may hide something from its config."""
    if isinstance(layer, keras.Model) or not type(layer).__module__.startswith(("keras.", "experiments.")):
        described: Hashable = layer
        return described
    return type(layer), repr({**layer.get_config(), "name": None})


def _is_constant(layer: keras.Layer) -> bool:
    """Nothing trains, and nothing but the weights decides the output: `variables` adds seeds and metrics to them.

    A dropout of nothing belongs to the head as any other does, so that heads which differ in it share all before it.
    """
    drawing = isinstance(layer, keras.layers.Dropout) or len(layer.variables) > len(layer.weights)
    return not layer.trainable_weights and not drawing


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
