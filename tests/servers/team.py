"""Servers of a team on loopback: PostgreSQL, S3 (SeaweedFS) and an MLflow server with accounts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import requests
from tests.postgres import postgres

START_SECONDS = 120
ADMIN, PASSWORD = "root-of-mlflow", "a long enough passphrase"
BUCKET = "runs"
AWS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """A server process that can be killed, stopped and started again."""

    def __init__(
        self, command: list[str], folder: Path, is_ready: Callable[[], object], *, user: str | None = None
    ) -> None:
        self._command, self._folder, self._is_ready, self._user = command, folder, is_ready, user
        self.environment: Mapping[str, str] = os.environ
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                self._is_ready()
                return
            time.sleep(0.1)
        raise TimeoutError((self._folder / "server.log").read_text()[-2000:])

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            process.wait(60)


def s3(folder: Path, port: int) -> Server:
    """Returns a SeaweedFS server with the S3 protocol at `port`."""
    folder.mkdir(parents=True)
    credentials = [{"accessKey": AWS["AWS_ACCESS_KEY_ID"], "secretKey": AWS["AWS_SECRET_ACCESS_KEY"]}]
    identity = {"name": "team", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    weed = Path(sys.executable).with_name("weed")
    # By default, the ports of gRPC are 10,000 above the others, where there may be none.
    parts = [f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")]
    options = [f"-{name}={free_port()}" for name in (*parts, "s3.port.grpc")]
    command = [str(weed), "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options, "-s3"]
    command += [f"-s3.port={port}", "-s3.config=s3.json", "-master.volumeSizeLimitMB=64"]

    def is_ready() -> None:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
            region_name=AWS["AWS_DEFAULT_REGION"],
        )
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise OSError(str(error)) from error
        except BotoCoreError as error:
            raise OSError(str(error)) from error

    return Server(command, folder, is_ready)


@dataclass(frozen=True)
class Team:
    """Addresses of the servers of a team, and the servers that a test may end and start again."""

    uri: str
    database: str
    mlflow: Server
    objects: Server
    objects_uri: str

    def environment(self, user: str = ADMIN) -> dict[str, str]:
        """Variables that a member's processes need, also for artifacts that are sent directly to S3."""
        account = {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_TRACKING_USERNAME": user}
        return {**AWS, **account, "MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_S3_ENDPOINT_URL": self.objects_uri}

    def administer(self, action: str, *, version: int = 2, **values: str) -> None:
        """Calls the API of accounts and permissions. Its client in MLflow imports the server, which warns."""
        url = f"{self.uri}/api/{version}.0/mlflow/{action}"
        answer = requests.post(url, json=values, auth=(ADMIN, PASSWORD), timeout=60)
        answer.raise_for_status()


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """Runs the three servers. Artifacts of new experiments pass through the MLflow server to S3."""
    port, objects_port = free_port(), free_port()
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        objects = s3(folder / "s3", objects_port)
        stack.callback(objects.end)
        objects.start()
        objects_uri = f"http://127.0.0.1:{objects_port}"
        server = mlflow(folder / "mlflow", port, database, objects_uri)
        stack.callback(server.end)
        server.start()
        yield Team(f"http://127.0.0.1:{port}", database, server, objects, objects_uri)


def mlflow(folder: Path, port: int, database: str, objects_uri: str) -> Server:
    folder.mkdir(parents=True)
    (folder / "accounts.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/accounts.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    command += [
        "--port",
        str(port),
        "--backend-store-uri",
        database,
        "--artifacts-destination",
        f"s3://{BUCKET}/mlflow",
    ]
    command += ["--workers", "1"]

    def is_ready() -> None:
        with suppress(HTTPError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            pass

    server = Server(command, folder, is_ready)
    server.environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        **AWS,
        "MLFLOW_S3_ENDPOINT_URL": objects_uri,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "accounts.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "the key of a test",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return server
