"""Errors of the database of a sweep: those of its connection are waited for, all others are not."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from experiments.sweeps.study_storage import _judged
from experiments.tracking import patience
from experiments.tracking.journal import Outage


class DriverError(Exception):
    """An error like those of psycopg."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("a message")
        self.sqlstate = sqlstate


def missing_table(folder: Path) -> Exception:
    try:
        sqlite3.connect(folder / "empty.db").execute("select * from trials")
    except sqlite3.OperationalError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("sqlstate", "is_outage"),
    [
        (None, True),  # the connection was refused or lost
        ("08006", True),  # connection failure
        ("53300", True),  # too many connections
        ("57P01", True),  # the administrator has shut the server down
        ("28P01", False),  # wrong password
        ("3D000", False),  # no such database
        ("25006", False),  # read-only
    ],
)
def test_only_errors_of_the_connection_are_outages(sqlstate: str | None, is_outage: bool) -> None:
    wrapped = StorageInternalError("as Optuna reports it")
    wrapped.__cause__ = OperationalError("select 1", {}, DriverError(sqlstate))
    judged = _judged(wrapped)
    assert isinstance(judged, Outage) if is_outage else judged is wrapped


def test_missing_table_is_no_outage(tmp_path: Path) -> None:
    error = OperationalError("select", {}, missing_table(tmp_path))
    assert _judged(error) is error


def test_call_that_hangs_prevents_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LEAVING_SECONDS", 0.1)
    released, began = threading.Event(), time.monotonic()
    patience.briefly(released.wait)
    assert 0.2 <= time.monotonic() - began < 5
    released.set()
