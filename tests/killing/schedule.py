"""Starts a job repeatedly, each time with a fault, until the run is finished. Then compares the results."""

import json
import shutil
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.killing.evidence import STORE, differences, empty_store, evidence, statuses
from tests.killing.faults import COUNTS, SIGNALLED, Fault
from tests.killing.jobs import COMMON, JOBS, draw
from tests.killing.outcome import Outcome, Start
from tests.killing.processes import in_a_fork, train

MOST_STARTS = 3
"""Starts without a fault after the faults; normally the first of them finishes the run."""


class Whole(NamedTuple):
    """An uninterrupted run. `counts` is the number of calls of each point."""

    evidence: dict[str, Any]
    counts: dict[str, int]
    seconds: float


class Schedule:
    """Executes jobs in `folder`: a folder for each run, with a copy of an empty store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        if not (folder / STORE).exists():
            in_a_fork(lambda: empty_store(folder))
        self.whole = cache(self._whole)

    def _whole(self, job: str) -> Whole:
        folder = self._prepared(f"{job}-whole")
        began = time.monotonic()
        status = train(folder, [*COMMON, *JOBS[job]], None, count=True)
        seconds = time.monotonic() - began
        if status != 0:
            raise RuntimeError(f"{job} ended with status {status}: {(folder / 'output.txt').read_text()}")
        return Whole(in_a_fork(lambda: evidence(folder)), json.loads((folder / COUNTS).read_text()), seconds)

    def _prepared(self, name: str) -> Path:
        folder = self.folder / name
        draw(folder)
        shutil.copy(self.folder / STORE, folder)
        return folder

    def run(self, job: str, faults: Sequence[Fault]) -> Outcome:
        """Runs the job with the faults. Ends early if the run is finished before all faults have occurred."""
        whole = self.whole(job).evidence
        self._number += 1
        folder = self._prepared(f"{job}-{self._number}")
        starts: list[Start] = []
        for fault in [*faults, *[None] * MOST_STARTS]:
            starts.append(_start(folder, [*COMMON, *JOBS[job]], fault))
            # A run that was killed after the store has received its end is finished too.
            if starts[-1].status == 0 or starts[-1].runs == ["FINISHED"]:
                break
        else:
            return Outcome(starts, [f"never ended: {(folder / 'output.txt').read_text()[-3000:]}"])
        found = differences(whole, in_a_fork(lambda: evidence(folder)))
        complaints = _complaints(folder)
        shutil.rmtree(folder)
        return Outcome(starts, [*found, *complaints])


def _start(folder: Path, overrides: Sequence[str], fault: Fault | None) -> Start:
    signalled = folder / SIGNALLED
    signalled.unlink(missing_ok=True)
    status = train(folder, overrides, fault)
    seconds = time.time() - json.loads(signalled.read_text(encoding="ascii")) if signalled.exists() else None
    return Start(status, statuses(folder), seconds)


def _complaints(folder: Path) -> list[str]:
    """Returns output lines that report errors or corrupt files: a kill must cause neither in a resumed run."""
    lines = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if any(sign in line for sign in ("is corrupt", "[ERROR]", "Traceback"))]
