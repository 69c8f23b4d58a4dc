"""Fetches one file over HTTP: resumed where it broke off, checked by its digest, then put in place."""

import hashlib
import logging
from pathlib import Path

import requests

from experiments.data.progress import progress
from experiments.errors import DataError

logger = logging.getLogger(__name__)
_CHUNK = 1 << 14  # all that is lost when a connection breaks
_TIMEOUT = (10, 30)  # seconds to connect, and between two chunks


def download(url: str, file: Path, *, sha256: str, offline: str) -> None:
    """Makes `file` from `url`; what arrived so far is kept beside it as `.part` and continued by the next call.

    offline: what a person without network can do instead, as one sentence; ends the message of each failure.
    Raises DataError when the server cannot be reached, refuses, or sends something whose SHA-256 is not `sha256`.
    """
    part = file.with_name(f"{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    while not _finish(url, part, offline):
        logger.info("The download of %s broke off after %d bytes: continuing", url, part.stat().st_size)
    received = _sha256(part)
    if received != sha256:
        part.unlink()
        raise DataError(
            f"{url} is not the expected file: expected SHA-256 {sha256}, received {received}. Set data.sha256 if the "
            f"file is the one you want, or data.url to another address. {offline}"
        )
    part.rename(file)


def _finish(url: str, part: Path, offline: str) -> bool:
    """Continues the download; False when it broke off but got further, so that another try is worth it."""
    before = _size(part)
    try:
        _receive(url, part)
    except requests.HTTPError as error:
        raise DataError(f"{url} cannot be downloaded: {error}. {offline}") from error
    except requests.RequestException as error:
        if _size(part) > before:
            return False
        raise DataError(f"{url} cannot be downloaded: {_reason(error)}. {offline}") from error
    return True


def _receive(url: str, part: Path) -> None:
    begun = _size(part)
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the digest tells whether it is right
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        length = response.headers.get("Content-Length")
        offset = begun if resumed else 0
        total = None if length is None else offset + int(length)
        with part.open("ab" if resumed else "wb") as file, progress(f"Downloading {part.stem}", total) as advance:
            advance(offset)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                advance(len(chunk))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _reason(error: requests.RequestException) -> str:
    kinds = {requests.Timeout: "the server does not answer", requests.ConnectionError: "the server is not reachable"}
    return next((words for kind, words in kinds.items() if isinstance(error, kind)), str(error))
