"""A frozen network that runs of one process share: the same bits as one built anew, and never a changed one."""

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
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_cache, "_last", {})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "network.weights.h5"
    network(built(seed=5)).save_weights(path)
    return path


@pytest.mark.parametrize("from_file", [False, True])
def test_a_shared_network_changes_no_bit(weights: Path, from_file: bool) -> None:
    options: dict[str, Any] = {"weights": str(weights) if from_file else None}
    alone = built(**options)
    again = built(**options)
    assert network(again) is network(alone)
    assert again.layers[-1] is not alone.layers[-1]
    for mine, theirs in zip(again.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [layer.name for layer in again.layers] == [layer.name for layer in alone.layers]


def frozen(key: str = "a", seed: int = 0, precision: str = "float32") -> keras.Model:
    """As `application` asks for it, but small."""

    def build() -> Network:
        return Network(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, trainable=False)]), loaded=True)

    keras.mixed_precision.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    shared = network_cache.shared(key, build).network
    keras.mixed_precision.set_dtype_policy("float32")
    return shared


def test_one_alone_is_kept() -> None:
    first = frozen()
    assert frozen() is first
    assert frozen("b") is not first
    assert frozen() is not first


@pytest.mark.parametrize("changed", [{"key": "b"}, {"seed": 1}, {"precision": "mixed_bfloat16"}])
def test_another_network_is_built(changed: dict[str, Any]) -> None:
    assert frozen() is not frozen(**changed)


def test_what_is_drawn_later_is_the_same() -> None:
    frozen()
    expected = random.random()
    frozen()
    assert random.random() == expected


def test_one_that_somebody_has_changed_is_built_anew() -> None:
    first = frozen()
    expected = first.get_weights()
    first.weights[0].assign_add(np.ones_like(expected[0]))
    second = frozen()
    second.layers[0].trainable = True
    third = frozen()
    assert len({id(network) for network in (first, second, third)}) == 3
    for mine, theirs in zip(third.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_that_was_written_anew_is_read_anew(weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.weights.h5"
    own.write_bytes(weights.read_bytes())
    first = built(weights=str(own))
    network(built(seed=6)).save_weights(own)
    second = built(weights=str(own))
    assert network(second) is not network(first)
    assert not np.array_equal(network(second).weights[0], network(first).weights[0])
