"""Addresses of tracking stores and their pages; loads nothing heavy."""

import shlex
from pathlib import Path

from experiments.masking import mask

SQLITE = "sqlite:///"
LOCAL_PAGE = "http://127.0.0.1:5000"


def database_path(tracking_uri: str) -> Path:
    """The file of a SQLite store; a relative one counts from the working folder of this moment."""
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def has_store(tracking_uri: str) -> bool:
    """Whether there may be runs: a database is a file, a server is asked later."""
    return not tracking_uri.startswith(SQLITE) or database_path(tracking_uri).is_file()


def where_to_look(tracking_uri: str, page: str | None) -> str:
    """What to type and open; a server is there already, the embedded store is shown by a command first.

    page: below the page's address.
    """
    if tracking_uri.startswith("http"):
        return f"{mask(tracking_uri).rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}\n{LOCAL_PAGE}/{page}"
