"""Databases of other MLflow versions."""

import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from alembic import command
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from experiments.repair.base import treat
from experiments.repair.schema import old_schema
from experiments.tracking.liveness import run_lock

OLD = "3500859a5d39"
"""Schema revision of MLflow 2.3, which added the table of model aliases."""


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """Database of MLflow 2.3 with one dead run."""
    path = tmp_path / "öld m.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(f"sqlite:///{path}")
        config.attributes["connection"] = connection
        command.upgrade(config, OLD)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'old', 'active')")
        database.execute(
            "INSERT INTO runs (run_uuid, name, user_id, experiment_id, status, start_time, lifecycle_stage) "
            "VALUES (?, 'r', 'u', 7, 'RUNNING', 1, 'active')",
            ("a" * 32,),
        )
        database.execute("INSERT INTO tags VALUES ('output_dir', ?, ?)", (str(tmp_path / "out"), "a" * 32))
    return path


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_old_store_is_listed_and_upgraded_with_fix_after_copy(old_store: Path) -> None:
    before = old_store.read_bytes()
    (found,) = old_schema(f"sqlite:///{old_store}")
    newest = _get_latest_schema_revision()
    assert found.state == f"its schema {OLD} is not {newest}, that of MLflow {mlflow.__version__}"
    assert treat(found, fix=False).done == "fix=true copies it, then upgrades it"
    assert old_store.read_bytes() == before
    assert treat(found, fix=True).done == f"upgraded; the previous file is öld m.db.{OLD}.backup"
    assert revision(old_store) == newest
    assert revision(old_store.with_name(f"öld m.db.{OLD}.backup")) == OLD
    assert MlflowClient(f"sqlite:///{old_store}").get_run("a" * 32).info.status == "RUNNING"
    assert list(old_schema(f"sqlite:///{old_store}")) == []


def test_store_of_live_run_is_not_upgraded(old_store: Path, tmp_path: Path) -> None:
    (found,) = old_schema(f"sqlite:///{old_store}")
    with run_lock(tmp_path / "out"):
        done = treat(found, fix=True).done
    assert done == f"failed: run {'a' * 32} is being worked on. Wait for its end, or stop it."
    assert revision(old_store) == OLD


def test_failed_upgrade_restores_file(old_store: Path) -> None:
    with closing(sqlite3.connect(old_store)) as database, database:
        database.execute("CREATE TABLE webhooks (in_the_way INTEGER)")
        database.execute("CREATE TABLE trace_info (in_the_way INTEGER)")
    (found,) = old_schema(f"sqlite:///{old_store}")
    done = treat(found, fix=True)
    assert done.failed
    assert "could not be upgraded and is unchanged: " in done.done
    assert revision(old_store) == OLD


def test_store_of_newer_mlflow_stays_unchanged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "m.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('fffffffffffe')")
        database.execute("CREATE TABLE runs (run_uuid TEXT, status TEXT)")
    (found,) = old_schema(f"sqlite:///{tmp_path}/m.db")
    assert found.state.startswith("its schema fffffffffffe is not ")
    done = treat(found, fix=True)
    assert done.failed
    assert "could not be upgraded and is unchanged: " in done.done
    assert "'fffffffffffe'" in done.done
    assert revision(tmp_path / "m.db") == "fffffffffffe"


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to look at"])
def test_other_files_are_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.db").write_bytes(content)
    assert list(old_schema(f"sqlite:///{tmp_path}/m.db")) == []


def test_store_of_current_mlflow_has_no_finding(client: MlflowClient) -> None:
    assert list(old_schema(client.tracking_uri)) == []
