"""Starts a job again and again, each start with a fault, until the run is finished; then compares."""

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
"""Without a fault: the first of them finishes."""


class Whole(NamedTuple):
    """An uninterrupted run. counts: how often it passed each point."""

    evidence: dict[str, Any]
    counts: dict[str, int]
    seconds: float


class Schedule:
    """folder: where the runs are, one folder each, and the empty store that each of them gets."""

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
        """Ends early where the run is finished before all faults were met."""
        whole = self.whole(job).evidence
        self._number += 1
        folder = self._prepared(f"{job}-{self._number}")
        starts: list[Start] = []
        for fault in [*faults, *[None] * MOST_STARTS]:
            starts.append(_start(folder, [*COMMON, *JOBS[job]], fault))
            # A run that was killed after the store had been told of its end is over.
            if starts[-1].status == 0 or starts[-1].runs == ["FINISHED"]:
                break
        else:
            return Outcome(starts, [f"never ended: {(folder / 'output.txt').read_text()[-3000:]}"])
        found = differences(whole, in_a_fork(lambda: evidence(folder)))
        complaints = _complaints(folder)
        shutil.rmtree(folder)
        return Outcome(starts, [*found, *complaints])


def _start(folder: Path, overrides: Sequence[str], fault: Fault | None) -> Start:
    told = folder / SIGNALLED
    told.unlink(missing_ok=True)
    status = train(folder, overrides, fault)
    seconds = time.time() - json.loads(told.read_text(encoding="ascii")) if told.exists() else None
    return Start(status, statuses(folder), seconds)


def _complaints(folder: Path) -> list[str]:
    """Nothing that a kill can do is an error or damage to the run that goes on."""
    lines = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if any(sign in line for sign in ("is damaged", "[ERROR]", "Traceback"))]
