"""Opens a sweep's run while its workers load TensorFlow; they take no job before it is there."""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from experiments.loading import loading
from experiments.run_lock import is_locked
from experiments.sweeps.plan import PLAN, Plan
from experiments.sweeps.study_file import STUDY

if TYPE_CHECKING:
    from experiments.sweeps.parent import Parent

OPENED, RUN_ID = "opened.json", "parent_run"
POLL_SECONDS = 0.05


class Opened(NamedTuple):
    """What workers are told. parent: the id of the sweep's run, None where nothing is tracked."""

    parent: str | None


class Opening:
    """Entering begins it on a thread of its own; leaving ends the run, with the error there is."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._run = ExitStack()
        self._thread = ThreadPoolExecutor(1, "open the sweep")
        self._parent: Future[Parent] | None = None

    def __enter__(self) -> Self:
        (self._folder / OPENED).unlink(missing_ok=True)  # of an earlier start
        self._parent = self._thread.submit(self._open)
        return self

    def parent(self) -> "Parent":
        """Waits for it. Raises TrackingError where there is none: no job was taken then."""
        if self._parent is None:
            raise RuntimeError("parent() is for the inside of a with block")
        return self._parent.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._run.__exit__(kind, error, traceback)
        if not (self._folder / RUN_ID).exists() and self._parent is not None and self._parent.exception() is not None:
            # Never begun: sweep.resume=last is for the one before.
            for name in (PLAN, STUDY):
                (self._folder / name).unlink(missing_ok=True)

    def _open(self) -> "Parent":
        try:
            with loading("mlflow"):
                from experiments.sweeps.parent import Parent
            parent = self._run.enter_context(Parent(self._plan, self._folder))
        except BaseException:
            _tell(self._folder, None)
            raise
        _tell(self._folder, Opened(parent.run_id))
        with loading("scipy"):  # while jobs run, so that nobody waits for it at the end
            import experiments.sweeps.summary  # noqa: F401
        return parent


def _tell(folder: Path, opened: Opened | None) -> None:
    temporary = folder / f"{OPENED}.tmp"
    temporary.write_text(json.dumps(opened and opened._asdict()))
    temporary.replace(folder / OPENED)


def wait_until_opened(folder: Path) -> Opened | None:
    """For workers; None where the sweep could not be opened, or its process is gone before."""
    while not (folder / OPENED).exists():
        if not is_locked(folder):
            return None
        time.sleep(POLL_SECONDS)
    told = json.loads((folder / OPENED).read_text())
    return None if told is None else Opened(**told)
