"""Simulation of runs whose processes are killed, whose machine loses power and whose store is absent for a time.

    python -m tests.tracking.power_failure 100000

The arguments are the number of schedules and the first seed. Each schedule is deterministic.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from unittest import mock

from tests.tracking.simulated_disk import ROOT, Disk, Killed, PowerCut

from experiments.errors import Rejected
from experiments.files import sync, write_atomically
from experiments.tracking import journal
from experiments.tracking.journal import Event, Journal, Unavailable

FIRST_STEP, LAST_STEP = 11, 22  # All have two digits, so that old offsets are often at the end of a line.
FOLDER = Path(ROOT) / "run"
CHECKPOINTS = FOLDER / "checkpoints"


class Store:
    """Keeps the events it receives by their id. It may be absent, and its answer may be lost."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.reliable = False
        self.received: dict[int, Event] = {}
        self.sent: Counter[int] = Counter()
        self.repeats = 0
        self.absent = False
        self.during_send: Callable[[], None] = lambda: None

    def send(self, events: Sequence[Event]) -> None:
        if not self.reliable:
            self.during_send()
            if self.absent:
                raise Unavailable("connection refused")
            if self._random.random() < 0.1:
                self.repeats += 1
                self._receive(events[: self._random.randint(1, len(events))])
                raise Unavailable("the answer was lost")
        self._receive(events)

    def _receive(self, events: Sequence[Event]) -> None:
        if events[0]["event"] == "unreadable":
            raise Rejected("no such event")
        for event in events:
            number = event["values"]["id"]
            assert event == self.received.get(number, event), f"event {number} was changed"
            assert number in self.received or number > max(self.received, default=0), f"event {number} is out of order"
            self.received[number] = event
            self.sent[number] += 1


class Schedule:
    """One run: several processes, and the machine's failures between and during them, all drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.ordered = self.random.random() < 0.5
        self._tags, self._deliveries, self._commits, self._absences, self._cuts = (
            self.random.choice((0, 0.1, 0.4, 0.8)) for _ in range(5)
        )
        self.disk = Disk(self.random, ordered=self.ordered)
        self.store = Store(self.random)
        self.store.during_send = self._during_send
        self.cuts = 0
        self._journal = Journal(FOLDER)
        self._is_open = False
        self._last_id = 100
        self._lost_power = False
        self._written: set[int] = set()
        self._promised: list[set[int]] = [set()]
        self._at_end: set[int] = set()
        self._reopened: set[int] = set()

    def play(self) -> None:
        """Plays the schedule. Raises AssertionError if a promise is broken."""
        with self.disk.mounted(), mock.patch.object(journal, "CHUNK_BYTES", 512):
            for _ in range(self.random.randint(1, 6)):
                self._draw_failure()
                with suppress(Killed, PowerCut):
                    self._train() if self.random.random() < 0.8 else self._synchronize()
                self._fail()
            self.store.reliable = True
            self._open()
            self._steps(LAST_STEP, quiet=True)
            journal.deliver(FOLDER, self.store)
            self._check_delivered()

    def _draw_failure(self) -> None:
        self.store.absent = self.random.random() < self._absences
        self.disk.death = self.random.choice((Killed, PowerCut, PowerCut))
        self.disk.die_in = self.random.choice((self.random.randrange(30), self.random.randrange(150), float("inf")))

    def _fail(self) -> None:
        """Ends the process. A machine may also lose its power when no process runs."""
        cut = (self.disk.dead and self.disk.death is PowerCut) or self.random.random() < self._cuts
        self.cuts += cut
        self._lost_power |= cut
        self.store.repeats += self.disk.dead or cut
        self._is_open = False
        self.disk.cut_power() if cut else self.disk.restart()

    def _train(self) -> None:
        self._open()
        self._steps(self.random.randint(1, 12))
        self._journal.close()
        self._is_open = False
        self._at_end = set(self._written)
        with suppress(Unavailable):
            journal.deliver(FOLDER, self.store)

    def _synchronize(self) -> None:
        """Delivers the journal of a dead process, as `doctor sync` does."""
        if journal.journal_file(FOLDER).exists():
            with suppress(Unavailable):
                journal.deliver(FOLDER, self.store)

    def _open(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        sync(FOLDER.parent)  # If the run folder is lost, its checkpoints are lost too.
        self._journal = Journal(FOLDER)
        self._journal.open()
        self._is_open = True
        number, self._step = self._newest_checkpoint()
        promised = self._promised[number] | self._at_end if self._lost_power else self._written
        self._lost_power, self._written = False, self._present()
        lost = promised - self._written
        assert not lost, (
            f"events {sorted(lost)} were written before checkpoint {number}, the end or a kill, and are lost"
        )
        self._reopened |= self._written
        self._recorded = journal.last_steps(FOLDER).get("id", 0)

    def _steps(self, count: int, *, quiet: bool = False) -> None:
        for _ in range(min(count, LAST_STEP + 1 - self._step)):
            if self._step > self._recorded:
                self._append("metrics", step=self._step)
            self._step += 1
            if quiet:
                continue
            if self.random.random() < self._tags:
                self._append("tags", padding=self.random.choice(("", "x" * 99)))
            if self.random.random() < self._deliveries:
                with suppress(Unavailable):
                    journal.deliver_chunk(FOLDER, self.store)
            if self.random.random() < self._commits:
                self._commit()
            if self.random.random() < 0.1:
                self.store.absent = not self.store.absent

    def _append(self, kind: str, **fields: object) -> None:
        self._last_id += 1
        self._journal.append(kind, values={"id": self._last_id}, **fields)
        self._written.add(self._last_id)

    def _during_send(self) -> None:
        """Appends an event while others are being sent, as the training thread does. Any call can be the last."""
        self.disk.step()
        if self._is_open and self.random.random() < self._tags / 2:
            self._append("tags")

    def _commit(self) -> None:
        self._journal.sync()
        CHECKPOINTS.mkdir(exist_ok=True)
        self._promised.append(set(self._written))
        state = {"number": len(self._promised) - 1, "step": self._step}
        write_atomically(CHECKPOINTS / f"{state['number']}.json", json.dumps(state))

    def _newest_checkpoint(self) -> tuple[int, int]:
        for number in reversed(range(1, len(self._promised))):
            path = CHECKPOINTS / f"{number}.json"
            if path.exists():
                state = json.loads(path.read_bytes())
                return state["number"], state["step"]
        return 0, FIRST_STEP

    def _lines(self) -> list[Event]:
        """Complete events in the journal, read without the code under test."""
        found = []
        content: bytes = self.disk.find(FOLDER / "journal.jsonl").content
        for line in content.split(b"\n")[:-1]:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def _present(self) -> set[int]:
        return {event["values"]["id"] for event in self._lines()}

    def _check_delivered(self) -> None:
        missing = (self._reopened | self._present()) - self.store.received.keys()
        assert not missing, f"events {sorted(missing)} are in the journal and were never delivered"
        assert max(self.store.sent.values()) <= 1 + self.store.repeats, "events were sent again without a reason"
        steps = [event["step"] for event in self._lines() if event["event"] == "metrics"]
        # Only the newest steps are repeated after a power failure, so a step that is lost between others stays lost.
        assert steps == sorted(set(steps)), f"steps {steps} are repeated or not in order"
        assert not self.ordered or steps == list(range(FIRST_STEP, LAST_STEP + 1)), f"steps {steps} are not complete"


def main(count: int, first: int = 0) -> int:
    logging.disable()  # refused events are expected
    began = time.monotonic()
    failed: Counter[str] = Counter()
    cuts = events = 0
    for seed in range(first, first + count):
        schedule = Schedule(seed)
        try:
            schedule.play()
        except AssertionError as error:
            reason = "".join(letter for letter in str(error) if not letter.isdigit())
            failed[" ".join(reason.replace("[", "").replace("]", "").replace(",", "").split())] += 1
            if failed.total() <= 3:
                print(f"seed {seed}: {error}")
        cuts += schedule.cuts
        events += len(schedule.store.received)
    print(f"{count} schedules, {cuts} power cuts, {events} events, {time.monotonic() - began:.0f} s")
    print(f"{failed.total()} failed")
    for reason, number in failed.most_common():
        print(f"{number:8} {reason}")
    return failed.total()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
