"""Opens a sweep's run while its workers load TensorFlow; they take no job before it is there."""

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
"""Locked by the sweep's process until it has written there; empty where it could not."""
PATIENCE_SECONDS = 5.0


class Opened(NamedTuple):
    """What workers are told. parent: the id of the sweep's run, None where nothing is tracked."""

    parent: str | None


@contextmanager
def start_parent_run(plan: "Plan", folder: Path, *, at_once: bool) -> Iterator[Callable[[], "Parent"]]:
    """Yields what waits for the run, and raises TrackingError where there is none: no job was taken then.

    Leaving ends the run, with the error there is; a store that hangs keeps nobody for long.
    at_once: before anything else, where this process is a worker too: two threads load packages no sooner than one.
    """
    parent: Future[Parent] = Future()
    told = (folder / OPENED).open("w")
    lock(told)

    def open_run() -> None:
        try:
            with told, without_gc("mlflow"):
                from experiments.sweeps.parent_run import Parent

                opened = run.enter_context(Parent(plan, folder))
                json.dump(Opened(opened.run_id)._asdict(), told)
        except Exception as error:
            parent.set_exception(error)
            return
        parent.set_result(opened)
        if not at_once:
            with without_gc("matplotlib"):  # while jobs run, so that nobody waits for it at the end
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
    """From now on workers take no job."""
    (folder / OPENED).unlink(missing_ok=True)


def is_open(folder: Path) -> bool:
    """Also where the sweep's process was killed: its workers go on."""
    return (folder / OPENED).exists()


def wait_until_opened(folder: Path) -> Opened | None:
    """For workers; None where the sweep could not be opened, is closed, or its process is gone."""
    try:
        with (folder / OPENED).open() as told:
            lock(told, shared=True)
            content = told.read()
    except FileNotFoundError:
        return None
    return Opened(**json.loads(content)) if content else None
