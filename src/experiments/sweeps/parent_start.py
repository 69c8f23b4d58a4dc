"""Opens the parent run while the workers import TensorFlow. They take no job before it is open."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from experiments.cli.startup import without_gc
from experiments.files import lock

if TYPE_CHECKING:
    from experiments.sweeps.parent_run import Parent
    from experiments.sweeps.plan import Plan

OPENED = "opened.json"
"""File locked by the sweep process until it has written the id of the parent run. Empty if opening it failed."""
PATIENCE_SECONDS = 5.0


class Opened(NamedTuple):
    """Message to the workers. `parent` is the id of the parent run, or None without tracking."""

    parent: str | None


@contextmanager
def start_parent_run(plan: "Plan", folder: Path, *, at_once: bool) -> Iterator[Callable[[], "Parent"]]:
    """Creates the parent run in a background thread, and ends it after the block.

    Yields a function that waits for the run and raises TrackingError if it could not be created; no job was taken then.
    The end waits at most PATIENCE_SECONDS for a store that hangs. With `at_once` the run is created before the block,
    for a process that is also a worker: importing packages in two threads is not faster.
    """
    parent: Future[Parent] = Future()
    file = (folder / OPENED).open("w")
    lock(file)

    def open_run() -> None:
        try:
            with file, without_gc("mlflow"):
                from experiments.sweeps.parent_run import Parent

                opened = run.enter_context(Parent(plan, folder))
                json.dump(Opened(opened.run_id)._asdict(), file)
        except Exception as error:
            parent.set_exception(error)
            return
        parent.set_result(opened)
        if not at_once:
            with without_gc("matplotlib"):  # imported while jobs run, to save time at the end
                import experiments.sweeps.summary  # noqa: F401

    with ExitStack() as run:
        if at_once:
            open_run()
        else:
            Thread(target=open_run, daemon=True).start()
        try:
            yield parent.result
        finally:
            wait([parent], PATIENCE_SECONDS)


def close(folder: Path) -> None:
    """Prevents workers from taking further jobs."""
    (folder / OPENED).unlink(missing_ok=True)


def is_open(folder: Path) -> bool:
    """Returns True until `close` is called, also after the sweep process was killed: its workers continue."""
    return (folder / OPENED).exists()


def wait_until_opened(folder: Path) -> Opened | None:
    """Waits for the parent run. Returns None if opening failed, the sweep is closed, or its process was killed."""
    try:
        with (folder / OPENED).open() as file:
            lock(file, shared=True)
            content = file.read()
    except FileNotFoundError:
        return None
    return Opened(**json.loads(content)) if content else None
