"""A real MLflow server on loopback."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 120


class MlflowServer:
    """A real server over one SQLite file, always on the same port."""

    def __init__(self, folder: Path, port: int, empty_store: Path) -> None:
        self._folder = folder
        shutil.copy(empty_store, folder / "store.db")
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = f"{sys.executable} -m mlflow server --host 127.0.0.1 --port {self._port} --workers 1".split()
        command += ["--backend-store-uri", "sqlite:///store.db", "--artifacts-destination", "./artifacts"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Its queue of jobs, which no run uses, takes ten seconds of processor to start.
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        self._wait()

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError((self._folder / "server.log").read_text())
