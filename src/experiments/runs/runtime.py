"""Settings that must be made before the first tensor: seeds, determinism, threads, precision and devices."""

import keras
import tensorflow as tf

from experiments.cli.startup import suppress_startup_logs
from experiments.errors import ConfigError
from experiments.records.environment import all_cores


def configure(
    *, seed: int, precision: str, deterministic: bool | str, threads: int | None, device: str, strategy: str
) -> tf.distribute.Strategy:
    """Configures the process for one run and returns the distribution strategy to build and train with.

    Raises ConfigError if `device` is "gpu" but there is no GPU, or if TensorFlow already runs with other `threads`.
    """
    # Restarts the numbers in layer names, which otherwise continue from the previous run of this process.
    keras.backend.clear_session()
    with suppress_startup_logs():
        _set_threads(threads)
        found = tf.config.list_physical_devices("GPU")
    gpus = _set_devices(device, found)
    keras.utils.set_random_seed(seed)
    if deterministic is True or (deterministic == "auto" and not gpus):
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_dtype_policy(precision)
    return _mirrored(gpus) if strategy == "mirrored" else tf.distribute.get_strategy()


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    set_before = tf.config.threading.get_intra_op_parallelism_threads()
    if set_before == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        if set_before == 0 and threads == all_cores():
            return  # TensorFlow's default is the same number
        raise ConfigError(
            f"runtime.threads={threads} comes too late: TensorFlow already runs in this process with another number. "
            "Give every job of one process the same runtime.threads, or start a new process."
        ) from error


def _set_devices(device: str, gpus: list[tf.config.PhysicalDevice]) -> list[tf.config.PhysicalDevice]:
    """Returns the GPUs that this run may use. Their memory grows on demand instead of being reserved completely."""
    if device == "gpu" and not gpus:
        raise ConfigError(
            "runtime.device=gpu, but TensorFlow finds no GPU on this machine. "
            "Install a TensorFlow with CUDA (pip install 'tensorflow[and-cuda]') or set runtime.device=auto."
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return []
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def _mirrored(gpus: list[tf.config.PhysicalDevice]) -> tf.distribute.Strategy:
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("GPU")])
    # The default cross-device operations number their collectives per process. A second model in the process would
    # reuse the numbers of the first, which belong to other shapes.
    cpus = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(cpus, cross_device_ops=tf.distribute.ReductionToOneDevice())
