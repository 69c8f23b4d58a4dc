"""Addresses of tracking stores; standard library only."""

from pathlib import Path

SQLITE = "sqlite:///"


def database_path(tracking_uri: str) -> Path:
    """The file of a SQLite store; a relative one counts from the working folder of this moment."""
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def has_store(tracking_uri: str) -> bool:
    """Whether there may be runs: a database is a file, a server is asked later."""
    return not tracking_uri.startswith(SQLITE) or database_path(tracking_uri).is_file()
