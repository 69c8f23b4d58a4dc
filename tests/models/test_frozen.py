"""What the split of a model asks its frozen layers, and remembers."""

from typing import Any

import keras
import numpy as np
import pytest

from experiments.models import frozen


def model(seed: int) -> keras.Model:
    first = keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed), trainable=False)
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2)(first(inputs)))


def test_single_examples_are_asked_once_for_equal_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    outputs = frozen._outputs

    def counting(of: keras.Model, inputs: Any) -> np.ndarray:
        sizes.append(len(inputs))
        return np.asarray(outputs(of, inputs))

    monkeypatch.setattr(frozen, "_outputs", counting)
    monkeypatch.setattr(frozen, "_exact", {})
    one, again, other = (frozen.split_frozen(model(seed), "float32") for seed in (0, 0, 1))
    assert one[2:] == again[2:]
    assert other.identity != one.identity
    assert sizes.count(1) == 2 * frozen.PROBES
