"""Downloads one file over HTTP, resumes interrupted downloads, and verifies the SHA-256 digest."""

import logging
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from experiments.cli.progress_bar import progress
from experiments.errors import DataError
from experiments.files import sha256_of

logger = logging.getLogger(__name__)
_CHUNK = 1 << 14  # bytes; no more than this is lost when a connection breaks
_TIMEOUT = 30  # seconds to wait for the connection and for each chunk


def download(url: str, file: Path, *, sha256: str, offline: str) -> None:
    """Downloads `url` to `file`; an interrupted download stays beside it as `.part`, and the next call resumes it.

    offline: sentence for users without network, added to each error message.
    Raises DataError if the server cannot be reached, refuses the request, or sends content with another SHA-256.
    """
    part = file.with_name(f"{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    while not _finish(url, part, offline):
        logger.info("The download of %s broke off after %d bytes: continuing", url, part.stat().st_size)
    received = sha256_of(part)
    if received != sha256:
        part.unlink()
        raise DataError(
            f"{url} is not the expected file: expected SHA-256 {sha256}, received {received}. Set data.sha256 if the "
            f"file is the one you want, or data.url to another address. {offline}"
        )
    part.rename(file)


def _finish(url: str, part: Path, offline: str) -> bool:
    """Resumes the download; returns False if it was interrupted after some progress, so that the caller retries."""
    before = _size(part)
    try:
        _receive(url, part)
    except HTTPError as error:
        raise DataError(f"{url} cannot be downloaded: {error.code} {error.reason}. {offline}") from error
    except (HTTPException, OSError) as error:
        if _size(part) > before:
            return False
        raise DataError(f"{url} cannot be downloaded: {_reason(error)}. {offline}") from error
    return True


def _receive(url: str, part: Path) -> None:
    begun = _size(part)
    request = Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urlopen(request, timeout=_TIMEOUT) as response:
            _write(response, part, begun if response.status == HTTPStatus.PARTIAL_CONTENT else 0)
    except HTTPError as error:
        error.close()  # an HTTPError is also the response, with an open connection
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise

        # The file was already complete, and the caller checks its digest.


def _write(response: HTTPResponse, part: Path, offset: int) -> None:
    """Writes the response from `offset` on. Raises ConnectionError if less than Content-Length arrives."""
    length = response.headers.get("Content-Length")
    total = None if length is None else offset + int(length)
    with part.open("ab" if offset else "wb") as file, progress(f"Downloading {part.stem}", total) as advance:
        advance(offset)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            advance(len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection broke off after {_size(part)} of {total} bytes")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    kinds = {TimeoutError: "the server does not answer", ConnectionRefusedError: "the server is not reachable"}
    return next((text for kind, text in kinds.items() if isinstance(cause, kind)), str(cause))
