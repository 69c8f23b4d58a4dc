"""Seeds, precision, determinism and devices of a run."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.errors import ConfigError
from experiments.records.environment import all_cores
from experiments.runs import runtime

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "precision": "float32",
    "deterministic": "auto",
    "threads": None,
    "device": "auto",
    "strategy": "none",
}


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


def configure(**changes: Any) -> tf.distribute.Strategy:
    return runtime.configure(**(DEFAULTS | changes))


def drawn() -> list[float]:
    initial = keras.layers.Dense(2)
    initial.build((None, 2))
    return [float(np.random.random()), float(tf.random.uniform([])), float(initial.kernel.numpy()[0, 0])]


def test_seed_determines_all_random_numbers() -> None:
    configure(seed=3)
    first = drawn()
    configure(seed=3)
    assert drawn() == first
    configure(seed=4)
    assert all(one != other for one, other in zip(drawn(), first, strict=True))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_precision_sets_dtype_policy(precision: str) -> None:
    configure(precision=precision)
    assert keras.config.dtype_policy().name == precision


def test_layer_names_restart_in_each_run() -> None:
    configure()
    name = keras.layers.Dense(1).name
    configure()
    assert keras.layers.Dense(1).name == name


def test_operations_are_deterministic_on_cpu() -> None:
    """TensorFlow refuses an unseeded generator if determinism is enabled."""
    configure(deterministic="auto")
    with pytest.raises(RuntimeError, match="determinism"):
        tf.random.Generator.from_non_deterministic_state()


def test_strategy_none_has_one_replica() -> None:
    assert configure().num_replicas_in_sync == 1


def test_mirrored_strategy_uses_all_logical_devices() -> None:
    strategy = configure(strategy="mirrored")
    assert strategy.num_replicas_in_sync == len(tf.config.list_logical_devices("CPU"))


def test_missing_gpu_is_refused() -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError) as error:
        configure(device="gpu")
    assert str(error.value) == (
        "runtime.device=gpu, but TensorFlow finds no GPU on this machine. "
        "Install a TensorFlow with CUDA (pip install 'tensorflow[and-cuda]') or set runtime.device=auto."
    )


def test_changed_number_of_threads_is_refused() -> None:
    tf.constant(1).numpy()
    running = tf.config.threading.get_intra_op_parallelism_threads()
    # A run records TensorFlow's default, so the same number must be accepted.
    configure(threads=running or all_cores())
    with pytest.raises(ConfigError, match=rf"^runtime\.threads={running + 99} comes too late"):
        configure(threads=running + 99)
