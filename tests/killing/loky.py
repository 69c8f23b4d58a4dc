"""Workers of joblib as forks of a process that has imported TensorFlow, where loky would start one that has not."""

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
"""Descriptors of a worker are moved there before they get the numbers that loky has written down."""
MOST_DESCRIPTORS = 64


def fork_workers() -> None:
    """To be called before anything else is done in a process: its workers are as it is now."""
    ours, theirs = socket.socketpair()
    # A worker is a grandchild that its parent left; this process becomes its parent, and can wait for it.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.fork() == 0:
        ours.close()
        processes.save_results(lambda: _serve(theirs))
    theirs.close()
    os.set_inheritable(ours.fileno(), False)

    def forked(cmd: Sequence[str], keep_fds: Iterable[int], env: Mapping[str, str] | None = None) -> int:
        kept = sorted({int(number) for number in keep_fds})
        wanted = {"cmd": cmd, "fds": kept, "env": {**os.environ, **(env or {})}, "folder": str(Path.cwd())}
        socket.send_fds(ours, [json.dumps(wanted).encode()], kept)
        return int(ours.recv(32))

    fork_exec.fork_exec = forked


def _serve(requests: socket.socket) -> None:
    """Forks a worker for each request, until the process that asks is gone."""
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


def _work(wanted: dict[str, Any], received: Sequence[int]) -> None:
    """`python -m MODULE WORDS`, the command of a worker, with the descriptors it was to inherit."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE_ALL_IN_USE) for number in received]
    os.closerange(3, ABOVE_ALL_IN_USE)
    for number, target in zip(moved, wanted["fds"], strict=True):
        os.dup2(number, target)
        os.close(number)
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["folder"])
    _, option, module, *words = wanted["cmd"]
    assert option == "-m", wanted["cmd"]
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
