"""What the machine does during a run: MLflow's own collectors and names, written through the journal."""

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


class SystemMetrics:
    """Samples every `interval` seconds and at the end; the step is the whole seconds that the run has been there.

    before: seconds that it had been there when this process began, so that a resumed run goes on counting.
    """

    def __init__(self, record: Record, *, interval: float, before: float) -> None:
        self._record = record
        self._interval = interval
        self._start = time.monotonic() - before
        self._last_step = int(before)
        self._stopped = Signal()
        self._thread = Thread(target=self._run, name="system-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        monitors = _monitors()
        _sample(monitors)  # the CPU's share is counted from the call before: the first says 0
        try:
            while not self._stopped.wait(self._interval):
                self._record_sample(monitors)
            self._record_sample(monitors)  # so that a run shorter than the interval has one too
        except OSError as error:
            _log.warning("System metrics end here, as they cannot be written: %s", error)

    def _record_sample(self, monitors: list[BaseMetricsMonitor]) -> None:
        step = int(time.monotonic() - self._start)
        if step > self._last_step:  # else an interval below a second
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
    with suppress(ImportError, RuntimeError):  # MLflow's way to say: no NVIDIA card, or no library to ask it
        monitors.append(GPUMonitor())
    return monitors
