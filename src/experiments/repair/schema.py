"""A database of runs that an older MLflow has made."""

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
    """Looked at before MLflow opens the file: some old ones it would change at once, without a copy."""
    path = database_path(tracking_uri)
    found = _revision(path) if tracking_uri.startswith(SQLITE) and path.is_file() else None
    if found is None or found == newest_revision():
        return
    if found not in {script.revision for script in _scripts().walk_revisions()}:
        yield Finding("store", str(path), f"its schema {found} is of a newer MLflow than {mlflow.__version__}", "")
        return
    yield Finding(
        "store",
        str(path),
        f"its schema {found} is older than that of MLflow {mlflow.__version__}",
        "upgrades it, after a copy",
        partial(upgrade, path, found),
    )


def upgrade(path: Path, found: str) -> str:
    """By MLflow's own command. Raises TrackingError where it fails, with the file as it was before."""
    copy = path.with_name(f"{path.name}.{found}.backup")
    with creation_lock(path):
        _refuse_live(path)
        _copy(path, copy)
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"{SQLITE}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            _copy(copy, path)
            reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise TrackingError(f"'{path}' is as before: {reason}. See `mlflow db upgrade --help`.")
    return f"upgraded; as before in {copy.name}"


def newest_revision() -> str:
    """The schema that the installed MLflow wants."""
    return str(_scripts().get_current_head())


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _revision(path: Path) -> str | None:
    """None where MLflow has not made the file."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError:
            return None
    return str(row[0]) if row else None


def _refuse_live(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        running = [row[0] for row in database.execute("SELECT run_uuid FROM runs WHERE status = 'RUNNING'")]
        for run_id in running:
            tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,)))
            if is_worked_on("RUNNING", tags):
                raise TrackingError(f"run {run_id} is being worked on. Wait for its end, or stop it.")


def _copy(source: Path, target: Path) -> None:
    """Whole, also while others read or write."""
    with closing(sqlite3.connect(source)) as origin, closing(sqlite3.connect(target)) as copy:
        origin.backup(copy)
