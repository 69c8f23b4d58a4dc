"""Opens the parent run while the workers import TensorFlow. They take no job before it is open."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from experiments.cli.startup import without_gc
from experiments.tracking.patience import SWEEP_SECONDS

if TYPE_CHECKING:
    from experiments.sweeps.parent_run import Parent
    from experiments.sweeps.plan import Plan
    from experiments.sweeps.queue import Queue

PATIENCE_SECONDS = 5.0


@contextmanager
def start_parent_run(plan: "Plan", queue: "Queue", folder: Path, *, at_once: bool) -> Iterator[Callable[[], "Parent"]]:
    """Creates the parent run in a background thread, and ends it after the block.

    Yields a function that waits for the run and raises TrackingError if it could not be created; no job was taken then.
    The end waits at most PATIENCE_SECONDS for a store that hangs. With `at_once` the run is created before the block,
    for a process that is also a worker: importing packages in two threads is not faster.
    """
    parent: Future[Parent] = Future()

    def open_run() -> None:
        try:
            with without_gc("mlflow"):
                from experiments.sweeps.parent_run import Parent

                opened = run.enter_context(Parent(plan, queue, folder))
                queue.members.open()
        except Exception as error:
            parent.set_exception(error)  # first, as the storage may be the cause
            queue.members.close(SWEEP_SECONDS)  # workers that still wait for the run would never end
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
