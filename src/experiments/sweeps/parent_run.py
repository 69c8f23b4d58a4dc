"""The parent run of a sweep. The MLflow UI groups the runs of the jobs under it."""

import logging
import socket
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.errors import ExperimentError, TrackingError, reading
from experiments.records.description import command
from experiments.records.environment import provenance
from experiments.records.named_run import JOB, SWEEP
from experiments.repair.base import treat
from experiments.repair.dead_runs import dead_runs
from experiments.sweeps.members import PARENT
from experiments.sweeps.plan import Plan
from experiments.sweeps.previous_runs import for_sweep
from experiments.tracking.liveness import signs_of_life
from experiments.tracking.mlflow_store import (
    checked,
    end_run,
    find_runs,
    get_or_create_experiment,
    name_run,
    open_store,
)
from experiments.tracking.mlflow_tracker import page_of
from experiments.tracking.notes import NOTE, code
from experiments.tracking.patience import SWEEP_SECONDS
from experiments.tracking.redaction import mask
from experiments.tracking.store_client import StoreClient
from experiments.tracking.uris import where_to_look

if TYPE_CHECKING:
    from experiments.sweeps.queue import Queue

logger = logging.getLogger(__name__)


class Parent:
    """Context manager that creates the parent run, or reopens that of a stopped sweep, and ends it.

    It also creates the store, before any worker opens it.
    """

    def __init__(self, plan: Plan, queue: "Queue", folder: Path) -> None:
        self._logging, self._plan, self._study, self._folder = plan.logging, plan, queue.study, folder
        self._beats = queue.members.beats
        self._client: StoreClient | None = None
        self.run_id: str | None = None
        self.page: str | None = None  # instructions to open the run in the MLflow UI; None without tracking
        self._results = ""

    def __enter__(self) -> Self:
        if self._logging.tracking_uri is not None:
            client = open_store(self._logging.tracking_uri, SWEEP_SECONDS)
            stored = self._study.user_attrs.get(PARENT)
            run = self._created(client) if stored is None else self._reopened(stored, client)
            self.run_id, self.page = str(run.info.run_id), where_to_look(self._logging.tracking_uri, page_of(run))
            client.update_run(self.run_id, status="RUNNING")
            self._client = StoreClient(client.tracking_uri)  # the sweep and its summary do not wait for the store
            self._send_heartbeat()
            self._beats.append(self._send_heartbeat)
        return self

    def _send_heartbeat(self) -> None:
        """Updates the tags by which `doctor` detects a killed sweep."""
        if self._client is None or self.run_id is None:
            return
        try:
            for name, value in signs_of_life(self._folder).items():
                self._client.set_tag(self.run_id, name, value)
        except TrackingError as failure:
            logger.info("The heartbeat could not be sent to the store: %s", failure)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._beats.clear()
        if self._client is not None and self.run_id is not None:
            status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
            reason = "" if error is None else code(mask(str(error) or type(error).__name__))
            client = StoreClient(self._client.tracking_uri, self._logging.flush_timeout)
            note = f"{self._results} {reason}".strip()
            # In a thread, as a server that hangs must not hold back a signal.
            ending = Thread(target=_end, args=(client, self.run_id, status, note), daemon=True)
            ending.start()
            ending.join(self._logging.grace_seconds if status == "KILLED" else None)
            if ending.is_alive():
                logger.warning("The parent run is not ended yet. `experiments doctor fix=true` ends it.")

    def close_killed(self) -> dict[int, str]:
        """Ends the runs of killed jobs. Returns a mapping of all job numbers to run ids."""
        if self._client is None:
            return {}
        try:
            # Those of other machines would be observed for minutes first.
            for finding in dead_runs(self._client, {SWEEP: self._plan.id, "host": socket.gethostname()}):
                logger.info("run %s: %s", finding.name, treat(finding, fix=True).done)
            return {number: str(run.info.run_id) for number, run in for_sweep(self._plan).items()}
        except ExperimentError as failure:
            logger.warning("The runs of the jobs could not be read from the store: %s", failure)
            return {}

    def log(self, folder: Path, values: dict[str, float], texts: dict[str, str]) -> None:
        """Logs the summary: its files, metrics and tags, the data of the best job, and a link to it."""
        if self._client is None or self.run_id is None:
            return
        try:
            self._client.log_artifacts(self.run_id, str(folder), folder.name)
            for name, value in values.items():
                self._client.log_metric(self.run_id, name, value)
            for name, text in texts.items():
                self._client.set_tag(self.run_id, name, mask(text))
            if "best job" in texts:
                run, metric = self._client.get_run(texts["best job"].split()[-1]), next(iter(self._plan.objectives))
                self._client.log_inputs(self.run_id, datasets=run.inputs.dataset_inputs)
                name = code(mask(run.info.run_name))
                self._results = f"Best job [{name}]({page_of(run)}): {code(metric)} {values['best']:.4g}."
        except TrackingError as failure:
            logger.warning("The summary could not be sent to the store; it is in %s: %s", folder, failure)

    def _reopened(self, run_id: Any, client: MlflowClient) -> Run:
        expected = "the parent run of this sweep in logging.tracking_uri. Repeat the working folder and the store"
        with reading(f"the parent run in the queue of the sweep in {self._folder}", expected):
            run: Run = checked(client, client.get_run(run_id), writes=True)
            if run.data.tags[SWEEP] != self._plan.id:
                raise ValueError(f"run {run.info.run_id} is not the parent run of this sweep")
            return run

    def _created(self, client: MlflowClient) -> Run:
        experiment = get_or_create_experiment(client, self._logging.experiment_name)
        name, (base, *_) = mask(self._logging.run_name or f"sweep-{self._folder.name}"), self._plan.bases.values()
        tags = {SWEEP: self._plan.id, "sweep.space": ", ".join(part.name for part in self._plan.space)}
        typed = [*self._plan.typed, *(each for each in base.hydra.overrides.hydra if "launcher" in each)]
        tags |= provenance().tags() | {NOTE: command("experiments train -m", typed, base.hydra)}
        # A process that was killed after its creation has not stored its id.
        begun = find_runs(client, self._logging.experiment_name, {SWEEP: self._plan.id})
        run = next((run for run in begun if JOB not in run.data.tags), None)
        run = run or client.create_run(experiment, run_name=name, tags=tags)
        checked(client, run, writes=True)
        self._study.set_user_attr(PARENT, run.info.run_id)
        name_run(client, run.info.run_id, name)
        client.log_text(run.info.run_id, mask("\n".join(self._plan.lines())), "plan.txt")
        return run


def _end(client: StoreClient, run_id: str, status: str, note: str) -> None:
    try:
        end_run(client, run_id, status, note)
    except TrackingError as failure:
        logger.warning("The parent run is not ended: %s `experiments doctor fix=true` ends it.", failure)
