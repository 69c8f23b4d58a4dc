"""Tracker that writes to MLflow through the journal, with explicit run ids instead of MLflow's fluent API."""

import logging
import signal
import time
import traceback as tracebacks
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag

from experiments.errors import Rejected, StoppedRun, TrackingError
from experiments.tracking.base import Tracker, Upload
from experiments.tracking.delivery import Delivery
from experiments.tracking.journal import Journal, first_event, journal_file, last_steps, undelivered
from experiments.tracking.liveness import Heartbeat
from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import checked, existing_run, get_or_create_experiment, open_store
from experiments.tracking.names import unique_name, valid_name
from experiments.tracking.notes import code
from experiments.tracking.redaction import mask, mask_value
from experiments.tracking.store_client import StoreClient, explaining
from experiments.tracking.system_metrics import SystemMetrics
from experiments.tracking.uris import sync_command

if TYPE_CHECKING:
    from experiments.data.base import DataSpec

ERROR_TAG_LENGTH = 500
DIGEST_LENGTH = 36  # MLflow's maximum; the profile contains the complete digest
_log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class MlflowTracker(Tracker):
    """Tracker of one MLflow run. Its methods append to `journal.jsonl` in `output_dir`; a thread delivers the events.

    tracking_uri: sqlite:///FILE (created if missing) or the http(s):// address of an MLflow server.
    flush_timeout: Seconds without progress after which the final delivery ends; the rest stays in the journal. Other
        requests wait as long for a store that is unavailable.
    grace_seconds: Maximum seconds of the final delivery after a signal. Its last request may take a little longer.
    delivery_interval: Seconds between two deliveries.
    system_metrics_interval: Seconds between two samples of CPU, memory, disk, network and GPU.
    run_name: Name of a new run; see `name_run`.
    run_id: Id of a run to resume; `output_dir` must be the folder of that run. None creates a run. Metrics that the
        run has already recorded are not recorded again.
    identity: Tags that are set when the run is created; a resumed run is found by them.

    Entering raises TrackingError if the store is not reachable or not writable, before it creates a run.
    """

    tracking_uri: str
    experiment_name: str
    run_name: str
    tags: Mapping[str, str]
    flush_timeout: float
    delivery_interval: float
    system_metrics: bool
    system_metrics_interval: float
    output_dir: Path
    grace_seconds: float = 5.0
    run_id: str | None = None
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.output_dir = self.output_dir.absolute()
        self._recorded: Mapping[str, int] = {}
        self._names: dict[str, str] = {}
        self._journal = Journal(self.output_dir)
        self._sink: MlflowSink  # set on entering, as the next two
        self._delivery: Delivery
        self._heartbeat: Heartbeat
        self._sampler: SystemMetrics | None = None

    def __enter__(self) -> Self:
        self._refuse_foreign_journal()
        client = open_store(self.tracking_uri, self.flush_timeout)
        try:
            self._open_run(client)
        except BaseException:
            self._journal.close()
            raise
        return self

    def _open_run(self, client: StoreClient) -> None:
        tags = self.identity if self.run_id else {**self.tags, **self.identity}
        run = self._existing_run(client, self.run_id) if self.run_id else self._create_run(client)
        self.run_id = str(run.info.run_id)
        self.page = page_of(run)
        experiment = client.get_experiment(run.info.experiment_id).name
        self._journal.append("start", run_id=self.run_id, tracking_uri=mask(client.tracking_uri), experiment=experiment)
        self._journal.append("name", name=mask(self.run_name))
        self.set_tags(tags)
        self._start_threads(client, run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._heartbeat.stop()
        if self._sampler is not None:
            self._sampler.stop()
        self._sink.is_leaving = error is not None
        status = _status(error)
        written = self._write_end(error, status) and journal_file(self.output_dir).exists()  # it may have been removed
        interrupted = error is not None and not isinstance(error, Exception)
        if interrupted:
            # Before the uploads that wait, so that another machine can resume the run at once.
            Thread(target=self._sink.end, args=(status,), daemon=True).start()
        if journal_file(self.output_dir).exists():
            self._finish_delivery(at_most=self.grace_seconds if interrupted else None)
        self._delivery.stop()
        self.model_uri = self._sink.model_uri
        if not written:
            self._sink.end(status)

    def log_params(self, params: Mapping[str, str]) -> None:
        self._journal.append("params", values=_masked(params))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        named = {self._name(name): float(value) for name, value in metrics.items()}
        values = {name: value for name, value in named.items() if step > self._recorded.get(name, step - 1)}
        if values:
            self._journal.append("metrics", step=int(step), values=values)

    def _name(self, name: str) -> str:
        """Returns the name under which MLflow accepts a metric."""
        if name not in self._names:
            self._names[name] = unique_name(valid_name(name), self._names.values())
            if self._names[name] != name:
                _log.warning("MLflow refuses the name of the metric %r: recorded as %r", name, self._names[name])
        return self._names[name]

    def log_artifacts(self, upload: Upload) -> None:
        options = {
            name: value for name in ("replace", "temporary", "growing", "model") if (value := getattr(upload, name))
        }
        self._journal.append("artifacts", path=str(upload.directory.absolute()), folder=upload.folder, **options)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._journal.append("tags", values=_masked(tags))

    def log_dataset(self, spec: "DataSpec", *, context: str) -> None:
        self._journal.append("dataset", context=context, **_dataset_fields(spec, context))

    def sync(self) -> None:
        self._journal.sync()

    def _refuse_foreign_journal(self) -> None:
        first = first_event(self.output_dir)
        if first is not None and first["run_id"] != self.run_id:
            raise TrackingError(
                f"the output folder '{self.output_dir}' contains the journal of run {first['run_id']}: "
                f"expected an empty folder. Set hydra.run.dir=FOLDER, or resume that run: resume={first['run_id']}."
            )

    def _create_run(self, client: StoreClient) -> Run:
        experiment_id = get_or_create_experiment(client, self.experiment_name)
        tags = _masked({**self.tags, **self.identity})
        self._open_journal()  # before the run is created: a folder that is not writable must leave no run in the store
        remedy = "Expected permission to write there. Set logging.tracking_uri, or run with logging=none."
        with explaining(f"{mask(self.tracking_uri)} refuses to create a run", remedy, Rejected):
            run = client.create_run(experiment_id, run_name=mask(self.run_name), tags=tags)
        return checked(client, run, writes=True)

    def _existing_run(self, client: StoreClient, run_id: str) -> Run:
        run = existing_run(client, run_id, key="resume", writes=True)
        self._open_journal()
        self._claim(client, run_id)
        self._recorded = last_steps(self.output_dir) or self._recorded_elsewhere(client, run)
        return run

    def _recorded_elsewhere(self, client: MlflowClient, run: Run) -> dict[str, int]:
        """Returns the last step of each metric in the store, for a run whose journal is on another machine."""
        histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        points = {name: max(points, key=lambda point: int(point.step)) for name, points in histories.items()}
        self._journal.not_before(max((point.timestamp for point in points.values()), default=0))
        return {name: int(point.step) for name, point in points.items()}

    def _claim(self, client: MlflowClient, run_id: str) -> None:
        """Marks the run as running at once, so that no other process considers it dead or resumes it too."""
        remedy = "Expected a writable run. Restore it if it was deleted, or start a new run with resume=null."
        with explaining(f"run {run_id} cannot be resumed in {mask(self.tracking_uri)}", remedy, Rejected):
            client.log_batch(run_id, tags=[RunTag(*item) for item in _masked(self.identity).items()])
            client.update_run(run_id, status="RUNNING")

    def _open_journal(self) -> None:
        what = f"the output folder '{self.output_dir}' is not writable"
        with explaining(what, "Set hydra.run.dir=FOLDER.", OSError):
            self._journal.open()

    def _start_threads(self, client: MlflowClient, run: Run) -> None:
        self._sink = MlflowSink(client, run.info.run_id, root=self.output_dir, owner=_masked(self.identity))
        self._delivery = Delivery(self.output_dir, self._sink, interval=self.delivery_interval)
        self._delivery.start()
        self._heartbeat = Heartbeat(self._sink.beat)
        self._heartbeat.start()
        if self.system_metrics:
            self._sampler = SystemMetrics(
                lambda metrics, step: self.log_metrics(metrics, step=step),
                interval=self.system_metrics_interval,
                before=self._age(run),
            )
            self._sampler.start()

    def _age(self, run: Run) -> float:
        """Age of the run in seconds, but not less than its last recorded step, in case the clock was set back."""
        recorded = [step for name, step in self._recorded.items() if name.startswith("system/")]
        return max(time.time() - float(run.info.start_time) / 1000, *recorded, 0.0)

    def _write_end(self, error: BaseException | None, status: str) -> bool:
        """Writes the end of the run. A full disk is logged, not raised (it would hide `error`), and returns False."""
        try:
            if isinstance(error, StoppedRun):
                self.set_tags({"stopped": str(error)})
            elif isinstance(error, Exception):
                self._record_failure(error)
            note = mask(self.conclusion) if error is None else code(_reason(error))
            self._journal.append("end", status=status, note=note)
            self._journal.close()
        except OSError as full:
            _log.error("The end of run %s cannot be written to %s: %s", self.run_id, self.output_dir, full)
            with suppress(OSError):
                self._journal.close()
            return False
        return True

    def _record_failure(self, error: Exception) -> None:
        path = self.output_dir / "traceback.txt"
        path.write_text(mask("".join(tracebacks.format_exception(error))), encoding="utf-8")
        self.set_tags({"error": _reason(error)[:ERROR_TAG_LENGTH]})  # masked before: half a secret is not recognized
        self.log_artifacts(Upload(path))

    def _finish_delivery(self, at_most: float | None) -> None:
        try:
            self._delivery.finish(self.flush_timeout, at_most=at_most)
        finally:  # also after a signal
            if left := undelivered(self.output_dir):
                remedy = self._sink.successor or f"To send them: {sync_command(self.output_dir, self.tracking_uri)}"
                text = "%d events of run %s are not delivered; kept in %s. %s"
                _log.warning(text, left, self.run_id, self.output_dir, remedy)


def page_of(run: Run) -> str:
    """Path of the run's page, below the address of the MLflow UI.

    It contains the workflow type; without it, MLflow opens its page for language models.
    """
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"


def _masked(texts: Mapping[str, str]) -> dict[str, str]:
    return {mask(name): mask_value(name, str(text)) for name, text in texts.items()}


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, StoppedRun) else "KILLED"


def _reason(error: BaseException) -> str:
    """Returns the last line of the traceback, the reason of a `StoppedRun`, or the name of the signal."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code - 128 in [*signal.Signals]:
        return f"stopped by {signal.Signals(error.code - 128).name}"
    last_line = "".join(tracebacks.format_exception_only(error)).strip()
    return mask(str(error) if isinstance(error, StoppedRun) else last_line)


def _dataset_fields(spec: "DataSpec", context: str) -> dict[str, object]:
    """Fields of a `dataset` event. The name contains the split: MLflow merges inputs with the same name and digest."""
    return {
        "name": f"{mask(Path(spec.source).name or spec.source)}/{context}",
        "digest": spec.digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": mask(spec.source),
        "schema": {"input_shape": spec.input_shape, "input_dtype": spec.input_dtype, "num_classes": spec.num_classes},
        "profile": {
            "num_examples": spec.num_examples,
            "class_counts": dict(zip(spec.class_names, spec.class_counts, strict=True)),
            "skipped": len(spec.skipped),
            "sha256": spec.digest,
        },
    }
