"""Server that forks trainings and other commands. Each request and each answer is one line of JSON.

Keys of a request -> answer:
{"folder", "overrides", "fault"} -> exit status;
{"folder", "door", "words", "streams"} and {"function", "arguments", "environment", "streams"} -> process id;
{"process", "wait"} -> exit status of such a process, null while it is running;
{"job", "faults"} -> starts of the run, and differences from an uninterrupted run.
"store" copies an empty tracking store into a folder without one.
"""

import faulthandler
import json
import logging
import os
import shutil
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from tests.killing.evidence import STORE
from tests.killing.processes import call, ended, save_results, start, train
from tests.killing.schedule import Schedule

ROOT = Path(__file__).parents[2]


def fork_server() -> socket.socket:
    """Forks the server from this process and returns the connection. This process must not have used TensorFlow yet.

    The first line that the server reads is {"folder": folder of the jobs, "environment": environment variables}.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        save_results(lambda: _serve(theirs))
    theirs.close()
    return ours


def _serve(connection: socket.socket) -> None:
    _forget_pytest(connection.fileno())
    with connection.makefile("rw", encoding="utf-8") as lines:
        settings = json.loads(lines.readline() or "null")
        if settings is None:
            return
        os.environ.clear()
        os.environ.update(settings["environment"])
        schedule = Schedule(Path(settings["folder"]))
        for line in lines:
            lines.write(json.dumps(answer(json.loads(line), schedule)) + "\n")
            lines.flush()


def _forget_pytest(kept: int) -> None:
    """Resets files, streams, hooks, logging and warnings of a fork of pytest to those of a new Python process."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        # Not closed but redirected: objects of pytest close these numbers later, which could then be other files.
        if name not in (kept, nothing, 1, 2):
            os.dup2(nothing, name, inheritable=name < 3)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(name, mode, closefd=False) for name, mode in enumerate("rww"))
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    logging.getLogger().handlers.clear()
    faulthandler.disable()
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    sys.path.insert(0, str(ROOT))
    sys.modules["__main__"] = sys.modules[__name__]


def answer(request: dict[str, Any], schedule: Schedule) -> Any:
    if "job" in request:
        outcome = schedule.run(**request)
        return {"starts": outcome.starts, "differences": outcome.differences}
    if "process" in request:
        return ended(**request)
    if "function" in request:
        return call(**request)
    folder = Path(request["folder"])
    if request["store"] and not (folder / STORE).exists():
        shutil.copy(schedule.folder / STORE, folder)
    if "door" in request:
        return start(folder, request["door"], request["words"], request["streams"], group=request["group"])
    return train(folder, request["overrides"], request["fault"])
