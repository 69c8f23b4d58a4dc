"""Reads a line for each command, or for each run that is to be disturbed, and answers with a line.

{"folder", "overrides", "fault"}: the exit status; {"folder", "door", "words", "streams"}, and {"function", "arguments",
"environment", "streams"}: the process id, to be asked for by {"process", "wait"}; {"job", "faults"}: how the run got to
its end, and what is not equal.
"store": whether the folder gets an empty one where it has none.
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
    """Starts the server as a fork of this process, which has imported TensorFlow and has not used it: its connection.

    The first line it reads says where: {"folder": of the jobs, "environment"}.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        save_results(lambda: _serve(theirs))
    theirs.close()
    return ours


def _serve(connection: socket.socket) -> None:
    _forget_pytest(connection.fileno())
    with connection.makefile("rw", encoding="utf-8") as lines:
        begun = json.loads(lines.readline() or "null")
        if begun is None:
            return
        os.environ.clear()
        os.environ.update(begun["environment"])
        schedule = Schedule(Path(begun["folder"]))
        for line in lines:
            lines.write(json.dumps(answer(json.loads(line), schedule)) + "\n")
            lines.flush()


def _forget_pytest(kept: int) -> None:
    """Makes a fork of pytest what `python -m` would have started: its files, streams and hooks are the system's."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        # Closed, they would get other files, which objects of pytest would close when they are collected.
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


def answer(wanted: dict[str, Any], schedule: Schedule) -> Any:
    if "job" in wanted:
        outcome = schedule.run(**wanted)
        return {"starts": outcome.starts, "differences": outcome.differences}
    if "process" in wanted:
        return ended(**wanted)
    if "function" in wanted:
        return call(**wanted)
    folder = Path(wanted["folder"])
    if wanted["store"] and not (folder / STORE).exists():
        shutil.copy(schedule.folder / STORE, folder)
    if "door" in wanted:
        return start(folder, wanted["door"], wanted["words"], wanted["streams"], group=wanted["group"])
    return train(folder, wanted["overrides"], wanted["fault"])
