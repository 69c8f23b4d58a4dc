"""Starts trainings and kills them where it is told: TensorFlow is imported once, and every training is a fork.

Reads one JSON object a line, {"folder", "overrides", "kill"}, and answers each with the exit status (-9: killed).
kill: null, {"after": seconds}, or {"call": dotted name, "number": n, "done": whether the n-th call is let through}.
"""

import json
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from experiments import report, run  # noqa: F401 -- loaded before the fork, so that no training pays for it
from experiments.doors import enter
from experiments.train import main


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


def kill_at(call: str, number: int, done: bool) -> None:
    """Replaces the function by one that kills this process at its n-th call, before or after doing its work."""
    owner_name, _, name = call.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < number:
            return original(*arguments, **options)
        if done:
            original(*arguments, **options)
        die()

    setattr(owner, name, counted)


def kill_after(seconds: float) -> None:
    def wait() -> None:
        time.sleep(seconds)
        die()

    threading.Thread(target=wait, daemon=True).start()


def train(folder: str, overrides: list[str], kill: dict[str, Any] | None) -> NoReturn:
    """In the forked process."""
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if kill and "call" in kill:
        kill_at(**kill)
    elif kill:
        kill_after(kill["after"])
    sys.argv = ["train.py", *overrides]
    status = 1
    try:
        enter(main, "config")
        status = 0
    except SystemExit as end:
        print(end.code)
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


for line in sys.stdin:
    wanted = json.loads(line)
    child = os.fork()
    if child == 0:
        train(**wanted)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
