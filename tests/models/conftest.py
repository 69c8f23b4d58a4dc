"""Small networks for the tests of models."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from experiments.models.applications import application

Build = Callable[..., keras.Model]


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def build() -> Build:
    """Returns a function that calls `application`, by default for the smallest MobileNetV2."""

    def _build(**changes: Any) -> keras.Model:
        arguments: dict[str, Any] = {"architecture": "MobileNetV2", "weights": None, "freeze": False, "dropout": 0.0}
        arguments |= {"include_top": False, "batch_norm_momentum": None, "alpha": 0.35}
        arguments |= {"input_shape": (32, 32, 3), "num_classes": 2}
        return application(**(arguments | changes))

    return _build


@pytest.fixture(scope="session")
def mobilenet(build: Build) -> keras.Model:
    """Returns a model that is shared by tests, which must not train it."""
    keras.utils.set_random_seed(1)
    return build()


@pytest.fixture
def mixed_bfloat16() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")
