"""A real PostgreSQL server on loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest


def initdb() -> str | None:
    """Program that creates a database, which Debian keeps out of the PATH; None if it is not installed."""
    return shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)


@dataclass(frozen=True)
class Postgres:
    """A server with an empty database. It can be stopped, which ends all connections, and started again."""

    url: str
    run: Callable[..., None]

    def start(self) -> None:
        self.run("start")

    def stop(self) -> None:
        self.run("-m", "immediate", "stop")


@contextmanager
def postgres() -> Iterator[str]:
    """Yields the URL of an empty database. Skips the test if the server or its driver is not installed."""
    with postgres_server() as server:
        yield server.url


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    if initdb() is None:
        pytest.skip("PostgreSQL is not installed")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg, the driver of PostgreSQL, is not installed")
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        folder = Path(name)
        shutil.chown(folder, user or os.getuid())
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        def run(*command: str) -> None:
            program = str(Path(initdb() or "").with_name(command[0]))
            arguments = [program, *command[1:]]
            subprocess.run(arguments, user=user, group=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "--no-sync")
        free.close()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = partial(run, "pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w")
        server = Postgres(f"postgresql://postgres@127.0.0.1:{port}/postgres", control)
        server.start()
        try:
            yield server
        finally:
            server.stop()
