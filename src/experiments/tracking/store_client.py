"""Client of a tracking store: sorts all failures into two kinds, and waits while the store is unavailable."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError

from experiments.errors import ExperimentError, Rejected, TrackingError
from experiments.tracking.journal import Forbidden, Outage, Unavailable
from experiments.tracking.patience import patiently
from experiments.tracking.redaction import mask

HINTS = {
    401: " Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    403: " Ask for the permission to edit the experiment, or set MLFLOW_TRACKING_USERNAME to another account.",
}
"""Remedies for HTTP client errors."""


@contextmanager
def judging() -> Iterator[None]:
    """Raises Unavailable or Rejected for an error of a library in the block. Errors of this package pass through."""
    try:
        yield
    except ExperimentError:
        raise
    except Exception as error:
        raise judged(error) from error


@contextmanager
def explaining(what: str, remedy: str, *kinds: type[Exception]) -> Iterator[None]:
    """Puts an error of these kinds in the block between `what` and `remedy`; without kinds, an error of a store."""
    try:
        yield
    except kinds or (Unavailable, Rejected) as error:  # noqa: B030 - a tuple of exception classes
        raise TrackingError(f"{what}: {str(error).rstrip('.')}. {remedy}") from error


def judged(error: Exception, *, of_artifacts: bool = False) -> Unavailable | Rejected:
    """Returns Unavailable if the same call may succeed later, Rejected if the store has understood and refused it."""
    status, answered, text = 400, True, f"{type(error).__name__}: {error}"
    missing = isinstance(error, ImportError) or "Credentials" in type(error).__name__
    if isinstance(error, MlflowException):
        status, text = error.get_http_status_code(), error.message
        # The error page of a proxy whose server is down is no answer of MLflow, whose answers are JSON.
        answered = isinstance(error, RestException) or not text.startswith("API request to ")
    elif isinstance(error, HTTPError) and error.response is not None:
        status, answered = error.response.status_code, error.response.status_code != 404  # perhaps of a proxy
    elif not isinstance(error, FileNotFoundError | NotADirectoryError | NotImplementedError) and (
        # Libraries of object stores raise errors of any type.
        of_artifacts or isinstance(error, OSError) or "database is locked" in text
    ):
        status = 503
    text = mask(" ".join(text.split()).partition(" [SQL: ")[0]) + HINTS.get(status, "")
    if 400 <= status < 500 and status not in (*HINTS, 408, 429) and answered:
        return Rejected(text)
    return Forbidden(text) if status == 403 else Unavailable(text) if status == 401 or missing else Outage(text)


judged_of_artifacts = partial(judged, of_artifacts=True)


class StoreClient(MlflowClient):
    """Client whose calls wait for `patience` seconds while the store is unavailable: see `patiently`."""

    def __init__(self, tracking_uri: str, patience: float = 0.0) -> None:
        super().__init__(tracking_uri)
        self._patience = patience

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "create_run" or not callable(found):
            return found
        judge = judged_of_artifacts if "artifact" in name else judged
        return lambda *arguments, **options: patiently(partial(found, *arguments, **options), self._patience, judge)

    def create_run(self, experiment_id: str, start_time: Any = None, tags: Any = None, run_name: Any = None) -> Run:
        """Creates a run. If the answer of the store is lost, the created run is found by its start and its tags."""
        start, own, sent = start_time or time.time_ns() // 1_000_000, dict(tags or {}), list[bool]()

        def create() -> Run:
            same = MlflowClient.search_runs(self, [experiment_id], f"attributes.start_time = {start}") if sent else ()
            found = [run for run in same if own.items() <= run.data.tags.items()]
            sent.append(True)
            return found[0] if found else MlflowClient.create_run(self, experiment_id, start, own, run_name)

        return patiently(create, self._patience, judged)
