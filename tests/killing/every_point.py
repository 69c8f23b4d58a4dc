"""Kills trainings at every point where they write and at random times, and compares them with uninterrupted ones."""

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.killing.faults import CALLS, JOURNAL_LINE, Fault
from tests.killing.jobs import JOBS
from tests.killing.outcome import Outcome
from tests.killing.schedule import Schedule, Whole

EACH = "short"
"""The job that is killed at each of its points."""
CHAIN = (3, 9)
"""Minimum and maximum number of kills of one run; fewer if the run ends earlier."""
FIRST = frozenset(
    {
        "experiments.runs.run.write_snapshot",
        "mlflow.MlflowClient.create_run",
        "mlflow.MlflowClient.log_inputs",
    }
)
LAST = frozenset(
    {
        "experiments.checkpoints.best.restore_weights",
        "experiments.runs.figures.draw",
        "experiments.runs.saved_model.save_model",
        "mlflow.MlflowClient.create_logged_model",
        "mlflow.MlflowClient.finalize_logged_model",
        "mlflow.MlflowClient.log_artifacts",
        "mlflow.MlflowClient.log_model_artifacts",
        "mlflow.MlflowClient.log_outputs",
        "mlflow.MlflowClient.set_terminated",
        "shutil.copyfile",
    }
)
"""Calls that a run makes only at its start (FIRST) or only at its end (LAST)."""
SLOW = frozenset({"frozen", "features"})
"""Jobs that are interrupted only in one run."""
SAVE = "tensorflow.train.CheckpointManager.save"
RECORD = "tensorflow.train.CheckpointManager._record_state"
SAVE_MILLISECONDS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="seed of the random kills"
    )
    parser.add_argument("--kills", type=int, default=300, help="minimum number of kills")
    parser.add_argument(
        "--jobs", default=",".join(JOBS), help=f"names, separated by commas; {EACH} is killed at each point"
    )
    asked = parser.parse_args()
    generator = random.Random(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Schedule(Path(folder)), generator)
        jobs = asked.jobs.split(",")
        if EACH in jobs:
            kills.at_each_point(EACH)
        for job in jobs:
            kills.chain(job)
        quick = itertools.cycle([job for job in jobs if job not in SLOW] or jobs)
        while kills.count < asked.kills:
            kills.chain(next(quick))
    print(f"{kills.count} kills, {kills.compared} runs compared, {kills.unequal or 'none'} unequal")
    sys.exit(1 if kills.unequal else 0)


class Kills:
    def __init__(self, schedule: Schedule, generator: random.Random) -> None:
        self._schedule, self._generator = schedule, generator
        self._chosen: dict[str, Iterator[Fault]] = {}
        self.count = self.compared = self.unequal = 0

    def at_each_point(self, job: str) -> None:
        """Kills at each point of an uninterrupted run, and once more after resuming."""
        points = list(each(self._schedule.whole(job).counts))
        self._generator.shuffle(points)
        print(f"{job}: {len(points)} points", flush=True)
        for point in points:
            self._run(job, [point, self._next(job) | {"number": 1}])

    def chain(self, job: str) -> None:
        faults = [self._next(job) for _ in range(self._generator.randint(*CHAIN))]
        first, *others = sorted(faults, key=_order)
        # A resumed run makes fewer calls of each kind than the first start.
        self._run(job, [first, *(fault | {"number": self._generator.randint(1, 3)} for fault in others)])

    def _next(self, job: str) -> Fault:
        if job not in self._chosen:
            self._chosen[job] = chosen(self._schedule.whole(job), self._generator)
        return next(self._chosen[job])

    def _run(self, job: str, faults: Sequence[Fault]) -> None:
        began = time.monotonic()
        outcome = self._schedule.run(job, faults)
        self.count += sum(start.status == -9 for start in outcome.starts)
        self.compared += 1
        self.unequal += bool(outcome.differences)
        statuses = [start.status for start in outcome.starts]
        print(f"{job}: {statuses} {self.count} kills, {time.monotonic() - began:.0f} s", flush=True)
        report(faults, outcome)


def _order(fault: Fault) -> int:
    call = fault.get("call")
    return 0 if call in FIRST else 2 if call in LAST else 1


def report(faults: Sequence[Fault], outcome: Outcome) -> None:
    if outcome.differences:
        print(*(f"    {fault}" for fault in faults), sep="\n")
        print(*(f"    NOT EQUAL {line}" for line in outcome.differences), sep="\n", flush=True)


def each(counts: dict[str, int]) -> Iterator[Fault]:
    """Yields faults before and after every call, and within calls that can be interrupted inside."""
    for call in CALLS:
        for number in range(1, counts.get(call, 0) + 1):
            for when in whens(call):
                yield {"call": call, "number": number, "when": when, "milliseconds": SAVE_MILLISECONDS / number}


def chosen(whole: Whole, generator: random.Random) -> Iterator[Fault]:
    """Yields faults endlessly: each kind of point at a random call, and sometimes a random time instead of a call."""
    kinds = [(call, when) for call in CALLS if whole.counts.get(call) for when in whens(call)]
    while True:
        generator.shuffle(kinds)
        for call, when in kinds:
            number, milliseconds = generator.randint(1, whole.counts[call]), generator.uniform(0, SAVE_MILLISECONDS)
            yield {"call": call, "number": number, "when": when, "milliseconds": milliseconds}
            if generator.random() < 1 / 4:
                yield {"after": generator.uniform(0, whole.seconds), "number": 1}


def whens(call: str) -> tuple[str, ...]:
    # "after" a journal line is the same point as "before" the next one.
    special = {JOURNAL_LINE: ("before", "torn"), SAVE: ("before", "after", "during")}
    return special.get(call, ("before", "after", "without_index") if call == RECORD else ("before", "after"))


if __name__ == "__main__":
    main()
