"""Access to MLflow tracking stores (servers and SQLite files), their experiments and their runs."""

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, LoggedModel, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import append_to_uri_path

from experiments.errors import Rejected, TrackingError
from experiments.files import replacing
from experiments.tracking.names import valid_name
from experiments.tracking.notes import NOTE, with_end
from experiments.tracking.patience import PATIENCE_SECONDS, least_patience, patiently
from experiments.tracking.redaction import mask
from experiments.tracking.store_client import StoreClient, explaining, judged, judged_of_artifacts
from experiments.tracking.uris import SQLITE, database_path, has_store, require_answer

CREATION_SECONDS = 1200  # longer than the owner of the lock waits for the database
NOISY = {
    "alembic": logging.WARNING,
    "botocore.credentials": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,
}
"""Loggers, and the level from which they are shown: a database that cannot be used is a traceback for each call."""
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Defaults for variables that the user has not set. Without them, MLflow retries for many minutes within one call, and
creates a second run if an answer is lost (`StoreClient` and the journal wait instead), prints the server's address with
its password when a run ends, and shows a progress bar for each download."""
LOCAL, OBJECT_STORES = ("", "file"), ("s3", "r2", "gs", "abfss", "wasbs", "hdfs", "dbfs")
RUNS_PER_PAGE = 1000
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Tag without which the MLflow page opens a new experiment in its view for language models."""
_answered: set[str] = set()
"""Servers that this process has reached. The next contact waits for them, as they exist."""


def open_store(tracking_uri: str, patience: float = PATIENCE_SECONDS) -> StoreClient:
    """Returns a client of a store that answers. A missing SQLite file is created, relative to the working folder.

    The client waits `patience` seconds for a store that is unavailable. The first contact of this process with a server
    does not wait. Raises TrackingError if the store cannot be used.
    """
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, level in NOISY.items():
        logging.getLogger(name).setLevel(level)
    patience = max(patience, least_patience.get())
    if tracking_uri.startswith(SQLITE):
        return _open_sqlite(database_path(tracking_uri), patience)
    first = patience if tracking_uri in _answered else least_patience.get()
    patiently(partial(require_answer, tracking_uri), first, judged)
    client = _client(tracking_uri, patience, first)
    _answered.add(tracking_uri)
    return client


def get_or_create_experiment(client: MlflowClient, name: str) -> str:
    """Returns the experiment's id. Safe if several processes create the experiment at the same time."""
    name, uri = mask(name), client.tracking_uri
    if (found := _experiment(client, name)) is None:
        # The artifacts of a SQLite store are stored beside its file; a server chooses their location itself.
        artifacts = (database_path(uri).parent / "mlartifacts").as_uri() if uri.startswith(SQLITE) else None
        with explaining(f"logging.experiment_name='{name}' cannot be created", "Set another name.", Rejected):
            try:
                found = client.get_experiment(client.create_experiment(name, artifacts, tags=EXPERIMENT_TAGS))
            except Rejected:
                found = client.get_experiment_by_name(name)  # created by another process
                if found is None:
                    raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"logging.experiment_name='{name}' is a deleted experiment: expected an active or a new one. "
            f"Restore it with `mlflow experiments restore --experiment-id {found.experiment_id}`, "
            "or set logging.experiment_name to another name."
        )
    _check_artifacts(client, found.artifact_location)
    return str(found.experiment_id)


def _experiment(client: MlflowClient, name: str) -> Experiment | None:
    """Returns the experiment with this name, or with the id that MLFLOW_EXPERIMENT_ID contains."""
    if name != os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment_by_name(mask(name))
    remedy = "Expected the id of an experiment. Unset it, or set logging.experiment_name."
    with explaining(f"MLFLOW_EXPERIMENT_ID={name} cannot be used", remedy, Rejected):
        return client.get_experiment(name)


def _client(tracking_uri: str, patience: float, first: float, *, shown_uri: str | None = None) -> StoreClient:
    """Returns a client. Its first request checks the address, the access and the schema, and waits `first` seconds.

    `shown_uri` is the address in error messages, if it differs.
    """
    remedy = "Expected sqlite:///FILE or the http(s):// address of an MLflow server. Set logging.tracking_uri, or run "
    shown = f"logging.tracking_uri='{mask(shown_uri or tracking_uri)}' cannot be used as a tracking store"
    with explaining(shown, f"{remedy}with logging=none."):
        if not tracking_uri:
            raise Rejected("it is empty.")
        patiently(lambda: MlflowClient(tracking_uri).search_experiments(max_results=1), first, judged)
        return StoreClient(tracking_uri, patience)


def _open_sqlite(path: Path, patience: float) -> StoreClient:
    with creation_lock(path):
        if not path.exists():
            # Created under another name: MLflow cannot complete the tables of a process that was killed during this.
            # Its rollback journal is removed, because SQLite would apply it to the new file.
            path.with_name(f".{path.name}.new-journal").unlink(missing_ok=True)
            with replacing(path, path.with_name(f".{path.name}.new")) as new:
                _client(f"{SQLITE}{new}", 0, 0, shown_uri=f"{SQLITE}{path}")
        # A locked file is a store that is in use, so that also the first contact waits.
        return _client(f"{SQLITE}{path}", patience, patience)


@contextmanager
def creation_lock(path: Path) -> Iterator[None]:
    """Lets only one process at a time create the tables: MLflow's migration fails if several processes run it.

    Uses SQLite's lock on an empty file beside the database: it is portable, and released when its process dies.
    """
    lock = path.with_name(f".{path.name}.lock")
    remedy = "Expected a file in a folder where you may write. Set logging.tracking_uri=sqlite:///FILE, or run with "
    with ExitStack() as stack:
        what = f"logging.tracking_uri='{SQLITE}{path}' cannot be written"
        with explaining(what, f"{remedy}logging=none.", OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(lock, timeout=CREATION_SECONDS, isolation_level=None)
            stack.enter_context(closing(connection)).execute("BEGIN EXCLUSIVE")
        yield


def existing_store(tracking_uri: str | None) -> StoreClient:
    """Opens a store for reading: raises TrackingError if its database file is missing, and does not create it."""
    if tracking_uri is None:
        raise TrackingError("logging=none keeps no runs to read. Set logging=mlflow.")
    if not has_store(tracking_uri):
        raise TrackingError(
            f"there is no file '{tracking_uri.removeprefix(SQLITE)}': expected the database of runs. "
            "Go to the folder where they were trained, or set logging.tracking_uri=sqlite:///FILE or an address."
        )
    return open_store(tracking_uri)


def existing_run(client: MlflowClient, run_id: str, key: str = "run_id", *, writes: bool = False) -> Run:
    """Returns a `checked` run. Raises TrackingError, with the config key `key` in its message, if there is none."""
    remedy = f"Set {key} to the id of a run in that store, as MLflow's page shows it, or logging.tracking_uri to the "
    with explaining(f"{key}={run_id} is not in {mask(client.tracking_uri)}", f"{remedy}run's store.", Rejected):
        found: Run = checked(client, client.get_run(run_id), writes=writes)
    if writes:
        _check_artifacts(client, found.info.artifact_uri)
    return found


def absence(client: MlflowClient, run_id: str) -> str:
    """Reason why the run is missing in the store; empty if it is there."""
    try:
        run = client.get_run(run_id)
    except Rejected:
        return "is no longer in the store"
    return "is deleted in MLflow" if run.info.lifecycle_stage == LifecycleStage.DELETED else ""


def _check_artifacts(client: MlflowClient, uri: str) -> None:
    """Lists an artifact location. Raises TrackingError if its package or credentials are missing."""
    remedy = "Expected its package (pip install 'keras-experiments[s3]' for s3://) and credentials. Provide them."
    with explaining(f"the artifact store {mask(uri)} cannot be used", remedy):
        # A folder that does not exist, because a location may contain many runs.
        find = partial(get_artifact_repository, uri, tracking_uri=client.tracking_uri)
        patiently(lambda: find().list_artifacts("experiments-check"), least_patience.get(), judged_of_artifacts)


def checked(client: MlflowClient, found: Run | LoggedModel, *, writes: bool = False) -> Any:
    """Returns `found`. Raises TrackingError if its files are not at a place of its store, or local and not to `writes`.

    MLflow sends its credentials to the host of the recorded address, and changes files in any local folder.
    """
    of_model, info = isinstance(found, LoggedModel), getattr(found, "info", found)
    name, uri = (f"models/{info.model_id}", info.artifact_location) if of_model else (info.run_id, info.artifact_uri)
    experiment = client.get_experiment(info.experiment_id)
    parts, store = urlsplit(uri), urlsplit(client.tracking_uri)
    if parts.scheme in LOCAL + OBJECT_STORES:
        known = uri == append_to_uri_path(experiment.artifact_location, name, "artifacts")
        known |= parts.scheme in LOCAL and not writes
    else:  # Compared as text, because libraries disagree on the host of http://a\@b.
        hosts = ("", store.netloc, store.netloc.rpartition("@")[2])
        known = parts.scheme in ("mlflow-artifacts", store.scheme) and parts.netloc in hosts
    if not known:
        raise TrackingError(
            f"the files of run {name} are at {mask(uri)[:200]!r}: expected a place on its server, or below "
            "the location of its experiment. Do not use this record, or set logging.tracking_uri to the run's store."
        )
    return found


def name_run(client: MlflowClient, run_id: str, name: str) -> None:
    """Gives a new run `name` if no other run of its experiment has it, else with the first characters of its id.

    A name that ends in `-` always gets them. A name that a user has given the run in MLflow is kept.
    """
    run = client.get_run(run_id)
    ends = [f"{'' if name[-1:] == '-' else ' ' if ' ' in name else '-'}{run_id[:count]}" for count in (4, 8, 16, 32)]
    names = [name, *(name[: 250 - len(end)] + end for end in ends)]
    if run.info.run_name not in names:
        return
    for chosen in names[name[-1:] == "-" :]:
        client.update_run(run_id, name=chosen)  # before the search: of two runs at the same time, one finds the other
        # Quotes and patterns of the query language become placeholders: too many matches do no harm.
        pattern = re.sub(r"[^\w #=.,+-]", "_", chosen)
        same = client.search_runs([run.info.experiment_id], f"attributes.run_name LIKE '{pattern}'", max_results=2)
        if all(other.info.run_id == run_id for other in same):
            return


def end_run(client: MlflowClient, run_id: str, status: str, note: str, *, end_time: int | None = None) -> None:
    """Ends a run and completes its description. It never ends before its start: the clock may have been set back."""
    run = client.get_run(run_id)
    client.set_terminated(run_id, status, end_time and max(end_time, run.info.start_time))
    if note:
        client.set_tag(run_id, NOTE, with_end(run.data.tags.get(NOTE, ""), status, note))


def find_runs(
    client: MlflowClient,
    experiment: str | None = None,
    tags: Mapping[str, str | None] = MappingProxyType({}),
    *,
    status: str = "",
    where: str = "",
    order: str = "start_time DESC",
    newest: int | None = None,
    page: int = RUNS_PER_PAGE,
) -> Iterator[Run]:
    """Yields runs of the store, the newest first unless `order` differs; none if the experiment does not exist.

    experiment: Name of the experiment; None searches all.
    tags: Tags that the runs must have; the value None accepts any value.
    status: A comparison, such as "!= 'FINISHED'".
    where: A further filter in MLflow's syntax.
    order: Columns to sort by, separated by ", ".
    newest: Maximum number of runs.
    page: Number of runs in one request.
    """
    if experiment is None:
        ids = [each.experiment_id for each in _pages(client.search_experiments)]
    else:
        named = _experiment(client, experiment)
        ids = [] if named is None else [named.experiment_id]
    rules = [f"tags.`{name}` " + ("!= ''" if value is None else f"= '{value}'") for name, value in tags.items()]
    rules += [each for each in (f"attributes.status {status}" if status else "", where) if each]
    if ids:
        search = partial(client.search_runs, ids, " and ".join(rules), order_by=order.split(", "))
        yield from islice(_pages(search, max_results=newest or page), newest)


def _pages(search: Callable[..., Any], **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def at_best(run: Run, client: MlflowClient, metric: str, mode: str) -> dict[str, float]:
    """Metrics of the epoch with the best value of `metric`; the first of several equal ones."""
    sign, history = 1 if mode == "max" else -1, client.get_metric_history(run.info.run_id, valid_name(metric))
    best = max(history, key=lambda point: (sign * point.value, -point.step))
    points = [
        point
        for name in run.data.metrics
        if "/" not in name
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    return {point.key: point.value for point in points if point.step == best.step} | {metric: best.value}
