"""TCP proxy on loopback that simulates faults of networks and servers."""

import socket
import threading
import time
from contextlib import suppress
from enum import Enum

HOST = "127.0.0.1"
BLOCK = 1 << 14


class Fault(Enum):
    """Behaviour of the proxy towards its connections, described by the value."""

    NONE = "relays everything"
    DROP = "closes each connection immediately"
    DELAY = "relays everything, each block half a second later"
    FAIL = "answers with status 500"
    CUT_REQUEST = "relays a thousand bytes to the server, then closes both sides"
    CUT_ANSWER = "relays the request, and closes before the answer"
    HANG = "reads everything and never answers"


class FaultyProxy:
    """Proxy of a server on loopback. `fault` applies to new connections; `connections` counts all that were opened."""

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
        """Sets the fault and closes the open connections, because clients would reuse them without the fault."""
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
                    self._forward(client, fault)

    def _forward(self, client: socket.socket, fault: Fault) -> None:
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
    """Copies bytes until the source is closed; CUT_REQUEST stops after 1000 bytes."""
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
