"""Downloads from servers that interrupt, send wrong content, refuse the request or cannot be reached."""

import hashlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data import mnist
from experiments.data.datasets.download import download
from experiments.errors import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFLINE = "Without network, do this."


def fetch(url: str, file: Path, sha256: str = SHA256) -> None:
    download(url, file, sha256=sha256, offline=OFFLINE)


def test_download_leaves_only_the_complete_file(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    file = tmp_path / "new folder ö" / "data set"
    fetch(serve(CONTENT).url, file)
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]


def test_interrupted_download_is_resumed(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    server = serve(CONTENT)
    server.break_after, server.times = 6 << 14, 2
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requested == [None, f"bytes={6 << 14}-", f"bytes={12 << 14}-"]


def test_later_call_resumes_partial_file(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    server = serve(CONTENT)
    server.break_after, server.times = 0, 1
    (tmp_path / "file.part").write_bytes(CONTENT[:50_000])
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size == 50_000
    fetch(server.url, tmp_path / "file")
    assert server.requested[-1] == "bytes=50000-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_without_ranges_restarts_download(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    server = serve(CONTENT)
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"something old")
    fetch(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_complete_partial_file_is_renamed(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(serve(CONTENT).url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_file_with_wrong_digest_is_refused_and_removed(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    server = serve(CONTENT)
    with pytest.raises(DataError) as raised:
        fetch(server.url, tmp_path / "file", sha256="0" * 64)
    assert str(raised.value) == (
        f"{server.url} is not the expected file: expected SHA-256 {'0' * 64}, received {SHA256}. Set data.sha256 if "
        "the file is the one you want, or data.url to another address. Without network, do this."
    )
    assert list(tmp_path.iterdir()) == []


def test_http_error_is_reported(tmp_path: Path, serve: Callable[[bytes], Any]) -> None:
    url = serve(CONTENT).url + "s"
    with pytest.raises(DataError) as raised:
        fetch(url, tmp_path / "file")
    assert str(raised.value).startswith(f"{url} cannot be downloaded: 404 Not Found")
    assert str(raised.value).endswith(OFFLINE)


def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        with pytest.raises(DataError) as raised:
            fetch(url, tmp_path / "file")
    assert str(raised.value) == f"{url} cannot be downloaded: the server is not reachable. {OFFLINE}"


def test_mnist_is_downloaded_once_by_parallel_threads(
    tmp_path: Path, serve: Callable[[bytes], Any], array_options: dict[str, Any]
) -> None:
    labels = np.arange(40) % 10
    np.savez(tmp_path / "source.npz", x_train=np.zeros((40, 28, 28), np.uint8), y_train=labels)
    content = (tmp_path / "source.npz").read_bytes()
    server, path = serve(content), str(tmp_path / "data" / "mnist.npz")
    digest = hashlib.sha256(content).hexdigest()
    shapes: list[tuple[int, ...]] = []

    def use() -> None:
        made = mnist(path, url=server.url, sha256=digest, **array_options)
        shapes.append(made.train.spec.input_shape)

    together = [threading.Thread(target=use) for _ in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert shapes == [(28, 28, 1)] * 4
    assert len(server.requested) == 1
