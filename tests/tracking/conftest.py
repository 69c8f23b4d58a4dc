"""A port that nothing listens on."""

import socket

import pytest


@pytest.fixture(scope="session")
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
