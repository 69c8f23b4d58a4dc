"""Starts joblib's workers as forks of a process that has imported TensorFlow, instead of as new Python processes."""

import ctypes
import fcntl
import json
import os
import runpy
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib.externals.loky.backend import fork_exec  # type: ignore[import-untyped]
from tests.killing import processes

PR_SET_CHILD_SUBREAPER = 36
ABOVE_ALL_IN_USE = 500
"""Descriptors of a worker are moved above this number before they get the numbers that loky expects."""
MOST_DESCRIPTORS = 64


def fork_workers() -> None:
    """Forks the process that starts the workers. Call it first: workers are copies of the process at this point."""
    ours, theirs = socket.socketpair()
    # A worker is a grandchild whose parent exits. As subreaper, this process becomes its parent and can wait for it.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.fork() == 0:
        ours.close()
        processes.save_results(lambda: _serve(theirs))
    theirs.close()
    os.set_inheritable(ours.fileno(), False)

    def forked(cmd: Sequence[str], keep_fds: Iterable[int], env: Mapping[str, str] | None = None) -> int:
        kept = sorted({int(number) for number in keep_fds})
        request = {"cmd": cmd, "fds": kept, "env": {**os.environ, **(env or {})}, "folder": str(Path.cwd())}
        socket.send_fds(ours, [json.dumps(request).encode()], kept)
        return int(ours.recv(32))

    fork_exec.fork_exec = forked


def _serve(requests: socket.socket) -> None:
    """Forks a worker for each request until the requesting process has ended."""
    while True:
        message, received, *_ = socket.recv_fds(requests, 1 << 20, MOST_DESCRIPTORS)
        if not message:
            return
        between = os.fork()
        if between == 0:
            worker = os.fork()
            if worker == 0:
                processes.save_results(lambda: _work(json.loads(message), received))  # noqa: B023
            requests.send(str(worker).encode())
            os._exit(0)
        os.waitpid(between, 0)
        for number in received:
            os.close(number)


def _work(request: dict[str, Any], received: Sequence[int]) -> None:
    """Runs the command of a worker, `python -m MODULE ARGUMENTS`, with the descriptors that it inherits."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE_ALL_IN_USE) for number in received]
    os.closerange(3, ABOVE_ALL_IN_USE)
    for number, target in zip(moved, request["fds"], strict=True):
        os.dup2(number, target)
        os.close(number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    _, option, module, *arguments = request["cmd"]
    assert option == "-m", request["cmd"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
