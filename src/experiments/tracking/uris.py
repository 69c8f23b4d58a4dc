"""Addresses of tracking stores and their pages; loads nothing heavy."""

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
    """The file of a SQLite store; a relative one counts from the working folder of this moment."""
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def has_store(tracking_uri: str) -> bool:
    """Whether there may be runs: a database is a file, a server is asked later."""
    return not tracking_uri.startswith(SQLITE) or database_path(tracking_uri).is_file()


def require_answer(tracking_uri: str) -> None:
    """Raises TrackingError where no server is there; any answer will do, also a refusal. A file is not asked.

    One short request, where MLflow's own client would wait and repeat.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(tracking_uri)
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
    """What to type and open; a server is there already, the embedded store is shown by a command first.

    page: below the page's address.
    """
    if tracking_uri.startswith("http"):
        return f"{mask(tracking_uri).rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}\n{LOCAL_PAGE}/{page}"
