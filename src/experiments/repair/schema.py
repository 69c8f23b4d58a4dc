"""Databases with the schema of another MLflow version, and their upgrade."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory

from experiments.errors import TrackingError
from experiments.repair.base import Finding
from experiments.tracking.liveness import is_worked_on
from experiments.tracking.mlflow_store import creation_lock
from experiments.tracking.uris import SQLITE, database_path


def old_schema(tracking_uri: str) -> Iterator[Finding]:
    """Yields a database with another schema.

    Reads the file without MLflow, which upgrades some old files as soon as it opens them, without a copy.
    """
    path = database_path(tracking_uri)
    found = _revision(path) if tracking_uri.startswith(SQLITE) and path.is_file() else None
    newest = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
    if found not in (None, newest):
        state = f"its schema {found} is not {newest}, that of MLflow {mlflow.__version__}"
        yield Finding("store", str(path), state, "copies it, then upgrades it", partial(upgrade, path, str(found)))


def upgrade(path: Path, found: str) -> str:
    """Upgrades the database with `mlflow db upgrade`. If that fails, restores the file and raises TrackingError."""
    copy = path.with_name(f"{path.name}.{found}.backup")
    with creation_lock(path):
        _refuse_live(path)
        _copy(path, copy)
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"{SQLITE}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            _copy(copy, path)
            reason = (done.stderr.strip() or "no error message").splitlines()[-1]
            raise TrackingError(
                f"'{path}' could not be upgraded and is unchanged: {reason}. See `mlflow db upgrade --help`."
            )
    return f"upgraded; the previous file is {copy.name}"


def _revision(path: Path) -> str | None:
    """Schema revision of a database; None if it was not created by MLflow."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError:
            return None
    return str(row[0]) if row else None


def _refuse_live(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        for (run_id,) in database.execute("SELECT run_uuid FROM runs WHERE status = 'RUNNING'").fetchall():
            tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,)))
            if is_worked_on("RUNNING", tags):
                raise TrackingError(f"run {run_id} is being worked on. Wait for its end, or stop it.")


def _copy(source: Path, target: Path) -> None:
    """Copies a database consistently, even while other processes read or write it."""
    with closing(sqlite3.connect(source)) as origin, closing(sqlite3.connect(target)) as copy:
        origin.backup(copy)
