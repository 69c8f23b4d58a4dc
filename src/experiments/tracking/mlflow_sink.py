"""Sink that sends journal events to one MLflow run, through the MLflow client."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.models.model import MLMODEL_FILE_NAME, Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME, MLFLOW_LOGGED_MODELS
from mlflow.utils.validation import path_not_unique

from experiments.errors import Rejected, TrackingError
from experiments.tracking.journal import BATCHED, Event, Forbidden, Unavailable
from experiments.tracking.logged_model import log_model
from experiments.tracking.mlflow_store import absence, end_run, name_run
from experiments.tracking.names import valid_name
from experiments.tracking.patience import patiently
from experiments.tracking.store_client import StoreClient, judged_of_artifacts, judging

logger = logging.getLogger(__name__)


class MlflowSink:
    """Sink of one run. Repetition is harmless: MLflow keeps only one of two metrics with equal step, time and value."""

    def __init__(
        self, client: MlflowClient, run_id: str, *, root: Path = Path("/"), owner: Mapping[str, str] | None = None
    ) -> None:
        """Uploads, and then may remove, only files below `root`, links in them included.

        `owner` contains the tags of this process (see `signs_of_life`); without them, the run's tags are not checked.
        """
        self._client = StoreClient(client.tracking_uri)  # does not wait, because the delivery thread does
        self._run_id = run_id
        self._root = root.resolve()
        self._owner = owner or {}
        self.is_leaving = False
        """True if the process ends early: another one may have resumed the run, so that the owner is checked."""
        self.model_uri: str | None = None
        self.successor = ""  # sentence on the process that has resumed the run

    def send(self, events: Sequence[Event]) -> None:
        try:
            with judging():  # a file that has vanished, or something that is not an event of this package
                if self.is_leaving or events[0]["event"] == "end" or events[0].get("replace"):
                    self._require_own()
                if events[0]["event"] in BATCHED:
                    self._send_batch(events)
                else:
                    self._send_one(events[0])
        except (Rejected, Unavailable) as error:
            # An answer of the store has a cause. It refuses all events of a run that it has lost.
            asked = isinstance(error, Rejected) and error.__cause__ is not None
            if asked and (missing := absence(self._client, self._run_id)):
                remedy = "restore it in MLflow, or create lost runs again with `experiments doctor refill=true`"
                raise Unavailable(f"run {self._run_id} {missing}: {remedy}") from error
            raise
        except TrackingError as error:
            raise Rejected(str(error)) from error

    def _require_own(self) -> None:
        """Raises Unavailable if another process has resumed the run, whose status and files belong to it then."""
        tags = self._client.get_run(self._run_id).data.tags if self._owner else {}
        if any(tags.get(name) != self._owner.get(name) for name in ("host", "pid", "output_dir")):
            process = f"Process {tags.get('pid')} on {tags.get('host')}"
            self.successor = f"{process} has resumed the run in {tags.get('output_dir')}."
            raise Unavailable(self.successor)

    def beat(self) -> None:
        """Updates the heartbeat tag, which shows other machines that the process runs."""
        with suppress(TrackingError):  # the next delivery reports an unavailable store
            self._client.set_tag(self._run_id, "heartbeat", f"{time.time():.0f}")

    def end(self, status: str) -> None:
        """Ends the run without the journal. If this fails, the journal or `doctor` ends it later."""
        with suppress(TrackingError):
            self._require_own()
            self._client.set_terminated(self._run_id, status=status)

    def _send_batch(self, events: Sequence[Event]) -> None:
        metrics = [
            Metric(name, value, event["time"], event["step"])
            for event in events
            if event["event"] == "metrics"
            for name, value in event["values"].items()
        ]
        texts: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
        for event in events:
            if event["event"] != "metrics":
                texts[event["event"]] |= event["values"]
        # Events that an earlier process of the run has left contain the tags of that process.
        texts["tags"] |= {name: text for name, text in self._owner.items() if name in texts["tags"]}
        params = [Param(*item) for item in texts["params"].items()]
        tags = [RunTag(*item) for item in texts["tags"].items()]
        self._client.log_batch(self._run_id, metrics=metrics, params=params, tags=tags)
        if "monitor.metric" in texts["params"]:
            self._set_primary_metric(valid_name(f"best_{texts['params']['monitor.metric']}"))

    def _send_one(self, event: Event) -> None:
        match event["event"]:
            case "start":
                if not self.is_leaving:  # the run has ended already
                    self._client.update_run(self._run_id, status="RUNNING")
            case "name":
                name_run(self._client, self._run_id, event["name"])
            case "dataset":
                self._client.log_inputs(self._run_id, datasets=[_dataset_input(event)])
            case "artifacts":
                self._upload(Path(event["path"]), event)
            case "end" if event["status"] in ("FINISHED", "FAILED", "KILLED"):
                end_run(self._client, self._run_id, event["status"], event.get("note", ""), end_time=event["time"])
            case other:
                raise Rejected(f"no such event: {other}")

    def _set_primary_metric(self, name: str) -> None:
        """Names the metric of the newest run, unless a user has chosen another one in MLflow."""
        experiment = self._client.get_experiment(self._client.get_run(self._run_id).info.experiment_id)
        if experiment.tags.get(MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME, "best_").startswith("best_"):
            with suppress(TrackingError):  # the account may not be allowed to change the experiment
                self._client.set_experiment_tag(experiment.experiment_id, MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME, name)

    def _upload(self, path: Path, event: Event) -> None:
        folder: str | None = event["folder"]
        if not all(each.resolve().is_relative_to(self._root) for each in (path, *path.rglob("*"))):
            raise Rejected(f"{path} leads out of the run folder")
        if folder is not None and path_not_unique(folder):  # a server answers 500, as if it were unavailable
            raise Rejected(f"{folder!r:.99} leads out of the files of the run")
        if path.is_file():
            self._client.log_artifact(self._run_id, str(path), artifact_path=folder)
        elif path.is_dir():
            self._upload_folder(path, folder, event)
        elif not event.get("temporary"):  # removed by a delivery that crashed before its acknowledgement
            raise Rejected(f"{path} no longer exists")

    def _upload_folder(self, path: Path, folder: str | None, event: Event) -> None:
        if event.get("model"):
            self.model_uri = log_model(self._client, self._client.get_run(self._run_id), path, event)
            if self.model_uri is not None:
                return
        with _snapshot(path) if event.get("growing") else nullcontext(path) as source:
            try:
                self._client.log_artifacts(self._run_id, str(source), artifact_path=folder)
            except Rejected as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                # A resumed run removes files of TensorBoard that it writes again, perhaps after they were listed.
                self._client.log_artifacts(self._run_id, str(source), artifact_path=folder)
        if event.get("replace") and folder is not None:
            self._require_own()  # again, as the upload may have taken minutes
            remove_others(self._client, self._run_id, path, folder)
        if event.get("temporary"):
            shutil.rmtree(path)
        # With this tag, MLflow's page lists the model, with its schema and the code that loads it.
        if (path / MLMODEL_FILE_NAME).is_file():
            model = Model.load(path).get_tags_dict() | {"run_id": self._run_id, "artifact_path": folder or ""}
            self._client.set_tag(self._run_id, MLFLOW_LOGGED_MODELS, json.dumps([model]))


@contextmanager
def _snapshot(path: Path) -> Iterator[Path]:
    """Yields a copy: a file that grows during its upload exceeds the length that the HTTP request has announced."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(path, Path(folder) / path.name))


def _dataset_input(event: Event) -> DatasetInput:
    dataset = Dataset(
        name=event["name"],
        digest=event["digest"],
        source_type=event["source_type"],
        source=json.dumps({"uri": event["source"]}),
        schema=json.dumps(event["schema"]),
        profile=json.dumps(event["profile"]),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", event["context"])])


def remove_others(client: StoreClient, run_id: str, directory: Path, folder: str) -> None:
    """Removes the files of the run's artifact `folder` that `directory` does not contain."""
    kept = {f"{folder}/{path.relative_to(directory).as_posix()}" for path in directory.rglob("*") if path.is_file()}
    others = [path for path in _files(client, run_id, folder) if path not in kept]
    if not others:
        return
    repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)
    try:
        patiently(lambda: [repository.delete_artifacts(path) for path in others], 0, judged_of_artifacts)
    except (Rejected, Forbidden):
        logger.warning("This artifact store or account cannot remove files: older files stay in %s/.", folder)


def _files(client: StoreClient, run_id: str, folder: str) -> Iterator[str]:
    for artifact in client.list_artifacts(run_id, folder):
        if artifact.is_dir:
            yield from _files(client, run_id, artifact.path)
        else:
            yield artifact.path
