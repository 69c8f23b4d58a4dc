"""A TCP proxy on loopback that does to its connections what networks and servers do."""

import socket
import threading
import time
from contextlib import suppress
from enum import Enum

HOST = "127.0.0.1"
BLOCK = 1 << 14


class Fault(Enum):
    """What happens to connections that are opened while it is set, and to those that are open already."""

    NONE = "passes everything on"
    DROP = "closes each connection at once"
    DELAY = "passes everything on, each block half a second later"
    FAIL = "answers 500 itself"
    CUT_REQUEST = "passes a thousand bytes to the server, then closes both sides"
    CUT_ANSWER = "lets the server work, and closes before its answer"
    HANG = "takes everything and never answers"


class FaultyProxy:
    """Listens on `port` until closed. `fault` may be changed at any time; `connections` counts those opened."""

    def __init__(self, target_port: int) -> None:
        self.fault = Fault.NONE
        self.connections = 0
        self._target_port = target_port
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def become(self, fault: Fault) -> None:
        """Ends open connections, which clients keep for their next requests."""
        self.fault = fault
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open = []

    def close(self) -> None:
        self._listener.close()
        self.become(Fault.DROP)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client, self.fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with suppress(OSError), client:
            match fault:
                case Fault.DROP:
                    return
                case Fault.HANG:
                    while client.recv(BLOCK):
                        pass
                case Fault.FAIL:
                    client.recv(BLOCK)
                    client.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                case _:
                    self._pass_on(client, fault)

    def _pass_on(self, client: socket.socket, fault: Fault) -> None:
        with socket.create_connection((HOST, self._target_port)) as server:
            requests = threading.Thread(target=_relay, args=(client, server, fault), daemon=True)
            requests.start()
            if fault is Fault.CUT_ANSWER:
                server.recv(1)
            else:
                _relay(server, client, Fault.NONE)
            _end(client, server)
            requests.join()


def _relay(source: socket.socket, target: socket.socket, fault: Fault) -> None:
    """Until the source says no more, or the fault's time has come."""
    left = 1000 if fault is Fault.CUT_REQUEST else None
    with suppress(OSError):
        while data := source.recv(BLOCK):
            if fault is Fault.DELAY:
                time.sleep(0.5)
            target.sendall(data[:left])
            if left is not None:
                left -= min(left, len(data))
            if left == 0:
                break
    if fault is not Fault.NONE or left == 0:
        _end(source, target)
    else:
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _end(*ends: socket.socket) -> None:
    for each in ends:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
