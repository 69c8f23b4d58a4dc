"""Fixtures for data sets: small image files, keyword arguments, and a file server on the loopback interface."""

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MakePhotos = Callable[[Path, dict[str, int]], Path]


def encoded(seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 20)) -> bytes:
    """Returns an encoded image of smooth noise; `size` is (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def make_photos() -> MakePhotos:
    """Writes the given number of JPEG files into each folder, e.g. {"train/cats": 3}."""

    def make(root: Path, folders: dict[str, int]) -> Path:
        for number, (folder, count) in enumerate(folders.items()):
            (root / folder).mkdir(parents=True)
            for index in range(count):
                (root / folder / f"{index:03}.jpg").write_bytes(encoded(1000 * number + index))
        return root

    return make


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Keyword arguments of `image_folder`, with the defaults of the config except for the cache."""
    return {
        "image_size": [16, 12],
        "channels": 3,
        "antialias": False,
        "cache": "none",
        "cache_dir": str(tmp_path / "cache ö"),
        "cache_required": True,
        "on_corrupt": "error",
        "allow_leakage": False,
        "rescan": False,
        **array_options(),
    }


@pytest.fixture(name="array_options")
def array_options_fixture() -> dict[str, Any]:
    return array_options()


def array_options() -> dict[str, Any]:
    return {
        "validation_fraction": 0.1,
        "limit": None,
        "batch_size": 4,
        "shuffle": True,
        "num_parallel_calls": "auto",
        "prefetch": "auto",
        "sampling": "shuffled",
        "class_weight": None,
        "seed": 0,
        "augment": (),
    }


class FileServer(ThreadingHTTPServer):
    """Serves `content` at /file with ranges; cuts the first `times` connections after `break_after` bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _FileHandler)
        self.content = content
        self.break_after: int | None = None
        self.times = 0
        self.ranges = True
        self.requested: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class _FileHandler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requested.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if begin >= len(self.server.content):
            self.send_error(416)
            return
        content = self.server.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.times > 0:
            self.server.times -= 1
            content = content[: self.server.break_after]
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Does nothing, to keep the test output clean."""


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], FileServer]]:
    """Starts servers of one file on loopback ports, and stops them at the end of the test."""
    servers: list[FileServer] = []

    def start(content: bytes) -> FileServer:
        server = FileServer(content)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
