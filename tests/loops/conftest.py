"""Sets two logical CPU devices before TensorFlow starts, so that a mirrored strategy has two replicas."""

from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Iterator[None]:
    """Runs before all tests, and after the process of `trainings` was forked, which trains on one device."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return (yield)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")
