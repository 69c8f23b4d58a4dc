"""Addresses of tracking stores and their pages. Imports no heavy library."""

import shlex
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from experiments.errors import TrackingError
from experiments.tracking.redaction import mask

SQLITE = "sqlite:///"
LOCAL_PAGE = "http://127.0.0.1:5000"
ANSWER_SECONDS = 5


def database_path(tracking_uri: str) -> Path:
    """File of a SQLite store; a relative path is resolved against the current working folder."""
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def has_store(tracking_uri: str) -> bool:
    """Returns False if the address is a SQLite file that does not exist. Servers are contacted later."""
    return not tracking_uri.startswith(SQLITE) or database_path(tracking_uri).is_file()


def require_answer(tracking_uri: str) -> None:
    """Raises TrackingError if the server does not answer; an HTTP error counts as an answer. Files are not checked.

    Sends one short request, because MLflow's own client waits and retries.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(tracking_uri)
    # `urlopen` does not accept a user and a password in the address.
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with urlopen(address, timeout=ANSWER_SECONDS):
            pass
    except HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"tracking server {mask(tracking_uri)} is not reachable: {reason}. "
            "Start it, set logging.tracking_uri, or run with logging=none."
        ) from error


def where_to_look(tracking_uri: str, page: str | None) -> str:
    """Returns the address of a run's page; for a SQLite store, preceded by the command that starts the MLflow UI.

    `page` is the path below the address of the UI.
    """
    if tracking_uri.startswith("http"):
        return f"{mask(tracking_uri).rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri {shlex.quote(mask(tracking_uri))}\n{LOCAL_PAGE}/{page}"
