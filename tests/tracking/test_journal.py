"""The journal against a recording sink: order, acknowledgement, refusal, absence."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experiments.tracking.delivery import Delivery
from experiments.tracking.journal import (
    Event,
    Journal,
    Rejected,
    Unavailable,
    acknowledged,
    deliver,
    first_event,
    journal_file,
    rejected_file,
    undelivered,
)


class RecordingSink:
    def __init__(self, refuse: Callable[[Sequence[Event]], Exception | None] = lambda _: None) -> None:
        self.requests: list[list[Event]] = []
        self.refuse = refuse

    def send(self, events: Sequence[Event]) -> None:
        if error := self.refuse(events):
            raise error
        self.requests.append(list(events))

    @property
    def events(self) -> list[Event]:
        return [event for request in self.requests for event in request]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.open()
    return journal


def _append_metrics(journal: Journal, *steps: int) -> None:
    for step in steps:
        journal.append("metrics", step=step, values={"loss": step / 10})


def test_events_arrive_once_and_in_order(tmp_path: Path, journal: Journal) -> None:
    journal.append("start", run_id="r")
    _append_metrics(journal, *range(5000))
    journal.append("end", status="FINISHED")
    sink = RecordingSink()
    deliver(tmp_path, sink)
    deliver(tmp_path, sink)
    assert [event["event"] for event in sink.events] == ["start", *["metrics"] * 5000, "end"]
    assert [event["step"] for event in sink.events[1:-1]] == list(range(5000))
    assert undelivered(tmp_path) == 0
    journal.close()


def test_neighbours_share_a_request_and_others_stand_alone(tmp_path: Path, journal: Journal) -> None:
    journal.append("params", values={"a": "1"})
    _append_metrics(journal, 1)
    journal.append("artifacts", path="x", folder=None)
    journal.append("artifacts", path="y", folder=None)
    journal.append("tags", values={"t": "1"})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert [len(request) for request in sink.requests] == [2, 1, 1, 1]
    journal.close()


def test_the_time_is_that_of_the_event(tmp_path: Path, journal: Journal) -> None:
    before = time.time() * 1000
    _append_metrics(journal, 1)
    after = time.time() * 1000
    time.sleep(0.05)
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert before - 1 <= sink.events[0]["time"] <= after
    journal.close()


def test_no_event_is_older_than_one_before(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    _append_metrics(journal, 1)
    journal.close()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 10**13)
    journal.open()
    _append_metrics(journal, 2, 3)
    sink = RecordingSink()
    deliver(tmp_path, sink)
    times = [event["time"] for event in sink.events]
    assert times == [times[0]] * 3
    journal.close()


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e-300, 0.1])
def test_numbers_survive_exactly(tmp_path: Path, journal: Journal, value: float) -> None:
    journal.append("metrics", step=0, values={"x": value, "nan": math.nan})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert sink.events[0]["values"]["x"] == value
    assert math.isnan(sink.events[0]["values"]["nan"])
    journal.close()


def test_any_text_survives(tmp_path: Path, journal: Journal) -> None:
    text = "Ünï\r\n\u2028\x00 \ud800 'x'"
    journal.append("tags", values={"t": text})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert sink.events[0]["values"]["t"] == text
    journal.close()


def test_what_is_not_acknowledged_is_delivered_by_a_later_process(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1)
    away = RecordingSink(lambda _: Unavailable("refused"))
    with pytest.raises(Unavailable):
        deliver(tmp_path, away)
    journal.close()
    assert undelivered(tmp_path) == 1
    later = RecordingSink()
    deliver(tmp_path, later)
    assert [event["step"] for event in later.events] == [1]


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1)
    journal.close()
    with journal_file(tmp_path).open("ab") as file:
        file.write(b'{"event":"metrics","st')
    sink = RecordingSink()
    deliver(tmp_path, sink)
    continued = Journal(tmp_path)
    continued.open()
    _append_metrics(continued, 2)
    continued.close()
    deliver(tmp_path, sink)
    assert [event["step"] for event in sink.events] == [1, 2]


def _refuses_bad(events: Sequence[Event]) -> Exception | None:
    bad = any("bad" in event.get("values", {}) for event in events)
    return Rejected("400 bad name") if bad else None


def test_a_refused_value_takes_nothing_good_with_it(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    _append_metrics(journal, *range(10))
    journal.append("metrics", step=10, values={"good": 1.0, "bad": 2.0, "fine": 3.0})
    _append_metrics(journal, *range(11, 20))
    sink = RecordingSink(_refuses_bad)
    deliver(tmp_path, sink)
    journal.close()
    delivered = [(event["step"], name) for event in sink.events for name in event["values"]]
    assert delivered == [
        *((n, "loss") for n in range(10)),
        (10, "good"),
        (10, "fine"),
        *((n, "loss") for n in range(11, 20)),
    ]
    rejected = [json.loads(line) for line in rejected_file(tmp_path).read_text().splitlines()]
    assert [(event["values"], event["reason"]) for event in rejected] == [({"bad": 2.0}, "400 bad name")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "journal.rejected.jsonl" in caplog.text


def test_an_unreadable_line_is_kept_as_refused(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1)
    journal.close()
    with journal_file(tmp_path).open("ab") as file:
        file.write(b"garbage\n")
    sink = RecordingSink(lambda events: Rejected("no such event") if events[0]["event"] == "unreadable" else None)
    deliver(tmp_path, sink)
    assert [event["step"] for event in sink.events] == [1]
    assert "garbage" in rejected_file(tmp_path).read_text()


def test_the_acknowledged_position_is_the_end_of_the_journal(tmp_path: Path, journal: Journal) -> None:
    assert acknowledged(tmp_path) == 0
    _append_metrics(journal, 1, 2, 3)
    deliver(tmp_path, RecordingSink())
    assert acknowledged(tmp_path) == journal_file(tmp_path).stat().st_size
    journal.close()


def test_the_first_event_names_the_run(tmp_path: Path, journal: Journal) -> None:
    assert first_event(tmp_path) is None
    journal.append("start", run_id="abc")
    journal.close()
    first = first_event(tmp_path)
    assert first is not None
    assert first["run_id"] == "abc"


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        Journal(tmp_path).append("metrics")


def test_the_delivery_waits_for_a_store_that_is_away(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    failures = [Unavailable("refused"), Unavailable("500"), None]
    sink = RecordingSink(lambda _: failures.pop(0) if failures else None)
    _append_metrics(journal, 1, 2)
    delivery = Delivery(tmp_path, sink, interval=0.01)
    delivery.start()
    while undelivered(tmp_path):
        time.sleep(0.01)
    _append_metrics(journal, 3)
    delivery.finish(timeout=10)
    journal.close()
    assert [event["step"] for event in sink.events] == [1, 2, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_the_delivery_gives_up_in_time_and_leaves_the_rest(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1, 2)
    delivery = Delivery(tmp_path, RecordingSink(lambda _: Unavailable("refused")), interval=0.01)
    delivery.start()
    began = time.monotonic()
    delivery.finish(timeout=0.3)
    assert time.monotonic() - began < 2
    delivery.join(5)
    assert not delivery.is_alive()
    assert undelivered(tmp_path) == 2
    journal.close()


def test_an_upload_may_take_longer_than_the_timeout(tmp_path: Path, journal: Journal) -> None:
    journal.append("artifacts", path="x", folder=None)
    journal.append("end", status="FINISHED")
    sink = RecordingSink(lambda events: time.sleep(1) if events[0]["event"] == "artifacts" else None)
    delivery = Delivery(tmp_path, sink, interval=0.01)
    delivery.start()
    delivery.finish(timeout=0.2)
    journal.close()
    assert [event["event"] for event in sink.events] == ["artifacts", "end"]


def test_a_defect_in_the_sink_is_reported_and_loses_nothing(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    _append_metrics(journal, 1)
    delivery = Delivery(tmp_path, RecordingSink(lambda _: KeyError("defect")), interval=0.01)
    delivery.start()
    delivery.join(5)
    assert "Delivery to the tracking store stopped" in caplog.text
    assert undelivered(tmp_path) == 1
    journal.close()
