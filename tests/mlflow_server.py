"""A real MLflow server on loopback."""

import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from tests.trainings import Started, Trainings

START_SECONDS = 120


class MlflowServer:
    """A real server with one SQLite file. Each start creates a new process, always on the same port."""

    def __init__(self, folder: Path, port: int, empty_store: Path, trainings: "Trainings") -> None:
        self.folder, self._trainings = folder, trainings
        shutil.copy(empty_store, folder / "store.db")
        self._port = port
        self._process: Started | None = None
        self._end = ExitStack()

    @property
    def port(self) -> int:
        return self._port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = self._end.enter_context(self._trainings.calling(serve, str(self.folder), self._port))
        self._wait(self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._end.close()

    def _wait(self, process: "Started") -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.goes_on():
            try:
                with urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise TimeoutError(process.stderr)


def serve(folder: str, port: int) -> None:
    """Runs the server that `mlflow server` starts with one worker, without the slow imports of its command line."""
    os.chdir(folder)
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: "sqlite:///store.db",
        constants.REGISTRY_STORE_URI_ENV_VAR: "sqlite:///store.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: "./artifacts",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # The job queue, which no run uses, needs ten seconds of CPU time to start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    import uvicorn
    from mlflow.server.fastapi_app import app

    uvicorn.run(app, host="127.0.0.1", port=port)
