"""A frozen network that is shared by runs of one process has the same bits as a new one, and was never changed."""

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from experiments.models import network_cache
from experiments.models.applications import application
from experiments.models.network_cache import Network

OPTIONS: dict[str, Any] = {
    "architecture": "MobileNetV2",
    "weights": None,
    "freeze": True,
    "dropout": 0.1,
    "include_top": False,
    "batch_norm_momentum": None,
    "alpha": 0.35,
    "input_shape": (32, 32, 3),
    "num_classes": 2,
}


def built(seed: int = 0, **options: Any) -> keras.Model:
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    return application(**{**OPTIONS, **options})


def network(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_cache, "_last", {})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "network.weights.h5"
    network(built(seed=5)).save_weights(path)
    return path


@pytest.mark.parametrize("from_file", [False, True])
def test_model_on_shared_network_is_bit_for_bit_identical(weights: Path, from_file: bool) -> None:
    options: dict[str, Any] = {"weights": str(weights) if from_file else None}
    first = built(**options)
    second = built(**options)
    assert network(second) is network(first)
    assert second.layers[-1] is not first.layers[-1]
    for mine, theirs in zip(second.weights, first.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [layer.name for layer in second.layers] == [layer.name for layer in first.layers]


def frozen(key: str = "a", seed: int = 0, precision: str = "float32") -> keras.Model:
    """Requests a network from the cache as `application` does, but a small one."""

    def build() -> Network:
        return Network(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, trainable=False)]), loaded=True)

    keras.mixed_precision.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    shared = network_cache.shared(key, build).network
    keras.mixed_precision.set_dtype_policy("float32")
    return shared


def test_only_last_network_is_cached() -> None:
    first = frozen()
    assert frozen() is first
    assert frozen("b") is not first
    assert frozen() is not first


@pytest.mark.parametrize("changed", [{"key": "b"}, {"seed": 1}, {"precision": "mixed_bfloat16"}])
def test_other_key_seed_or_precision_builds_another_network(changed: dict[str, Any]) -> None:
    assert frozen() is not frozen(**changed)


def test_later_random_numbers_are_the_same() -> None:
    frozen()
    expected = random.random()
    frozen()
    assert random.random() == expected


def test_changed_network_is_built_again() -> None:
    first = frozen()
    expected = first.get_weights()
    first.weights[0].assign_add(np.ones_like(expected[0]))
    second = frozen()
    second.layers[0].trainable = True
    third = frozen()
    assert len({id(network) for network in (first, second, third)}) == 3
    for mine, theirs in zip(third.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_overwritten_file_is_read_again(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.weights.h5"
    path.write_bytes(weights.read_bytes())
    first = built(weights=str(path))
    network(built(seed=6)).save_weights(path)
    second = built(weights=str(path))
    assert network(second) is not network(first)
    assert not np.array_equal(network(second).weights[0], network(first).weights[0])
