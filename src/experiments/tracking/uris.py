"""Addresses of tracking stores and their pages. Imports no heavy library."""

import json
import os
import re
import shlex
import warnings
from pathlib import Path

from experiments.tracking.journal import Outage
from experiments.tracking.redaction import mask

SQLITE = "sqlite:///"
LOCAL_PAGE = "http://127.0.0.1:5000"
ANSWER_SECONDS = 5


def database_path(tracking_uri: str) -> Path:
    """File of a SQLite store; a relative path is resolved against the current working folder."""
    return Path(tracking_uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def has_store(tracking_uri: str) -> bool:
    """Returns False if the address is a SQLite file that does not exist. Servers are contacted later."""
    return not tracking_uri.startswith(SQLITE) or database_path(tracking_uri).is_file()


def require_answer(tracking_uri: str) -> None:
    """Raises Outage if the server does not answer; any HTTP status is an answer. Files are not checked.

    Sends one short request, because MLflow's own client waits longer. Proxies and TLS are those of MLflow's client.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return
    import requests

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    verify = not insecure and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True)
    own = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    try:
        with warnings.catch_warnings(action="ignore"):  # the user has chosen not to verify the certificate
            requests.get(tracking_uri, verify=verify, cert=own, timeout=ANSWER_SECONDS, stream=True).close()
    except (OSError, ValueError) as error:
        reason: BaseException = error
        while reason.__context__ is not None:  # requests wraps the error of the system twice
            reason = reason.__context__
        certified = isinstance(error, requests.exceptions.SSLError)
        remedy = "Set MLFLOW_TRACKING_SERVER_CERT_PATH to its certificate" if certified else "Start it"
        raise Outage(
            f"tracking server {mask(tracking_uri)} is not reachable: {reason}. "
            f"{remedy}, set logging.tracking_uri, or run with logging=none."
        ) from error


def without_login(tracking_uri: str) -> str:
    return re.sub(r"^(https?://)[^/]*@", r"\1", tracking_uri)


def sync_command(folder: Path, tracking_uri: str) -> str:
    """Returns the command that delivers the folder's journal, from any working folder. Its login is to be completed."""
    sqlite, address = tracking_uri.startswith(SQLITE), without_login(tracking_uri)
    login = "MLFLOW_TRACKING_USERNAME=USER MLFLOW_TRACKING_PASSWORD=PASSWORD " * (address != tracking_uri)
    address = f"{SQLITE}{database_path(tracking_uri)}" if sqlite else mask(address)
    name, store = (json.dumps(text, ensure_ascii=False) for text in (str(folder), address))
    return login + shlex.join(["experiments", "doctor", "sync", f"folders=[{name}]", f"logging.tracking_uri={store}"])


def where_to_look(tracking_uri: str, page: str | None) -> str:
    """Returns the address of a run's page; for a SQLite store, preceded by the command that starts the MLflow UI.

    `page` is the path below the address of the UI.
    """
    if tracking_uri.startswith("http"):
        return f"{mask(tracking_uri).rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri {shlex.quote(mask(tracking_uri))}\n{LOCAL_PAGE}/{page}"
