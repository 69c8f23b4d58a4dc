"""Splits of models after their frozen layers, and the cache of what these layers compute."""

from collections.abc import Callable
from typing import Any

import keras
import pytest

from experiments.models import frozen


def model(seed: int) -> keras.Model:
    first = keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed), trainable=False)
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2)(first(inputs)))


def test_equal_layers_compute_probes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compiled = frozen._compiled

    def counting(chain: keras.Model, dtype: Any) -> Callable[[Any], Any]:
        features = compiled(chain, dtype)

        def counted(inputs: Any) -> Any:
            sizes.append(len(inputs))
            return features(inputs)

        return counted

    monkeypatch.setattr(frozen, "_compiled", counting)
    monkeypatch.setattr(frozen, "_known", {})
    one, same, other = (frozen.split_frozen(model(seed), "float32") for seed in (0, 0, 1))
    assert (one.identity, one.exact) == (same.identity, same.exact)
    assert other.identity != one.identity
    assert sizes.count(1) == 2 * frozen.PROBES


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_belongs_to_the_head(rate: float) -> None:
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(rate)(keras.layers.Dense(4, trainable=False)(inputs))
    head = frozen.split_frozen(keras.Model(inputs, keras.layers.Dense(2)(hidden)), "float32").head
    assert [type(layer).__name__ for layer in head.layers] == ["InputLayer", "Dropout", "Dense"]
