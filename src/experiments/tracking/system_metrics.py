"""System metrics of a run, sampled by MLflow's own collectors under MLflow's names."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event as Signal
from threading import Thread

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

_log = logging.getLogger(__name__)
Record = Callable[[Mapping[str, float], int], None]


class SystemMetrics(Thread):
    """Samples every `interval` seconds and at the end. The step of a sample is the run's age in whole seconds.

    `before` is the run's age in seconds when this process started; a resumed run continues to count from it.
    """

    def __init__(self, record: Record, *, interval: float, before: float) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self._record = record
        self._interval = interval
        self._start = time.monotonic() - before
        self._last_step = int(before)
        self._stopped = Signal()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        monitors = _monitors()
        _sample(monitors)  # CPU use is measured since the previous call, so the first value is always 0
        try:
            while not self._stopped.wait(self._interval):
                self._record_sample(monitors)
            self._record_sample(monitors)  # so that a run shorter than the interval has a sample too
        except OSError as error:
            _log.warning("System metrics are no longer recorded, because they cannot be written: %s", error)

    def _record_sample(self, monitors: list[BaseMetricsMonitor]) -> None:
        step = int(time.monotonic() - self._start)
        if step > self._last_step:  # false for a second sample within the same second
            self._last_step = step
            self._record(_sample(monitors), step)


def _sample(monitors: list[BaseMetricsMonitor]) -> dict[str, float]:
    sample: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        sample |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return sample


def _monitors() -> list[BaseMetricsMonitor]:
    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # raised by MLflow if there is no NVIDIA GPU, or no library to query it
        monitors.append(GPUMonitor())
    return monitors
