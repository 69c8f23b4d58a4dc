"""The journal and its delivery, with a recording sink: order, acknowledgement, rejection and unavailability."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experiments.errors import Rejected, TrackingError
from experiments.tracking.delivery import Delivery
from experiments.tracking.journal import (
    Event,
    Journal,
    Unavailable,
    acknowledged,
    deliver,
    first_event,
    journal_file,
    last_steps,
    rejected_file,
    undelivered,
    waiting_uploads,
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


def test_events_are_delivered_once_in_order(tmp_path: Path, journal: Journal) -> None:
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


def test_consecutive_batched_events_share_one_request(tmp_path: Path, journal: Journal) -> None:
    journal.append("params", values={"a": "1"})
    _append_metrics(journal, 1)
    journal.append("artifacts", path="x", folder=None)
    journal.append("artifacts", path="y", folder=None)
    journal.append("tags", values={"t": "1"})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert [len(request) for request in sink.requests] == [2, 1, 1, 1]
    journal.close()


def test_event_has_time_of_append_not_of_delivery(tmp_path: Path, journal: Journal) -> None:
    before = time.time() * 1000
    _append_metrics(journal, 1)
    after = time.time() * 1000
    time.sleep(0.05)
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert before - 1 <= sink.events[0]["time"] <= after
    journal.close()


def test_event_times_never_decrease_if_clock_is_set_back(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_numbers_are_delivered_exactly(tmp_path: Path, journal: Journal, value: float) -> None:
    journal.append("metrics", step=0, values={"x": value, "nan": math.nan})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert sink.events[0]["values"]["x"] == value
    assert math.isnan(sink.events[0]["values"]["nan"])
    journal.close()


def test_special_characters_are_delivered_exactly(tmp_path: Path, journal: Journal) -> None:
    text = "Ünï\r\n\u2028\x00 \ud800 'x'"
    journal.append("tags", values={"t": text})
    sink = RecordingSink()
    deliver(tmp_path, sink)
    assert sink.events[0]["values"]["t"] == text
    journal.close()


def test_unacknowledged_event_is_delivered_later(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1)
    unavailable = RecordingSink(lambda _: Unavailable("refused"))
    with pytest.raises(Unavailable):
        deliver(tmp_path, unavailable)
    journal.close()
    assert undelivered(tmp_path) == 1
    later = RecordingSink()
    deliver(tmp_path, later)
    assert [event["step"] for event in later.events] == [1]


def test_incomplete_last_line_is_dropped(tmp_path: Path, journal: Journal) -> None:
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


def _reject_bad(events: Sequence[Event]) -> Exception | None:
    bad = any("bad" in event.get("values", {}) for event in events)
    return Rejected("400 bad name") if bad else None


def test_rejected_value_does_not_block_valid_ones(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    _append_metrics(journal, *range(10))
    journal.append("metrics", step=10, values={"good": 1.0, "bad": 2.0, "fine": 3.0})
    _append_metrics(journal, *range(11, 20))
    sink = RecordingSink(_reject_bad)
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


def test_unreadable_line_is_stored_as_rejected(tmp_path: Path, journal: Journal) -> None:
    _append_metrics(journal, 1)
    journal.close()
    with journal_file(tmp_path).open("ab") as file:
        file.write(b"garbage\n")
    sink = RecordingSink(lambda events: Rejected("no such event") if events[0]["event"] == "unreadable" else None)
    deliver(tmp_path, sink)
    assert [event["step"] for event in sink.events] == [1]
    assert "garbage" in rejected_file(tmp_path).read_text()


def test_acknowledged_position_is_end_of_journal_after_delivery(tmp_path: Path, journal: Journal) -> None:
    assert acknowledged(tmp_path) == 0
    _append_metrics(journal, 1, 2, 3)
    deliver(tmp_path, RecordingSink())
    assert acknowledged(tmp_path) == journal_file(tmp_path).stat().st_size
    journal.close()


@pytest.mark.parametrize("position", ["9" * 20, f"{30:020}", "planted", "", "-1"])
def test_wrong_position_delivers_events_again(tmp_path: Path, journal: Journal, position: str) -> None:
    _append_metrics(journal, 1, 2)
    journal.close()
    (tmp_path / "journal.offset").write_text(position)
    assert acknowledged(tmp_path) == 0
    assert undelivered(tmp_path) == 2


@pytest.mark.parametrize("time_of_last", ['"x"', "null", "[1]", "1.5"])
def test_last_event_without_time_is_no_limit(tmp_path: Path, time_of_last: str) -> None:
    journal_file(tmp_path).write_text(f'{{"event":"metrics","time":{time_of_last},"step":1,"values":{{}}}}\n')
    journal = Journal(tmp_path)
    journal.open()
    _append_metrics(journal, 2)
    journal.close()
    assert [json.loads(line)["step"] for line in journal_file(tmp_path).read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("line", ['{"event":"metrics","values":{"a":1}}', '{"event":"metrics","step":1,"values":3}'])
def test_metrics_that_cannot_be_read_are_one_line(tmp_path: Path, line: str) -> None:
    journal_file(tmp_path).write_text(f"{line}\n")
    with pytest.raises(TrackingError, match=r"^the journal in '.*' cannot be used: .*Expected the content as [^\n]*$"):
        last_steps(tmp_path)


@pytest.mark.parametrize("fields", ["", ',"path":[1]', ',"path":null'])
def test_uploads_that_cannot_be_read_are_one_line(tmp_path: Path, fields: str) -> None:
    journal_file(tmp_path).write_text(f'{{"event":"artifacts"{fields}}}\n')
    with pytest.raises(TrackingError, match=r"^the journal in '.*' cannot be used: .*Expected the content as [^\n]*$"):
        waiting_uploads(tmp_path)


def test_folder_with_impossible_name_has_no_journal() -> None:
    for name in ("/" + "a" * 5000, "a\0b"):
        assert first_event(Path(name)) is None


def test_first_event_has_run_id(tmp_path: Path, journal: Journal) -> None:
    assert first_event(tmp_path) is None
    journal.append("start", run_id="abc")
    journal.close()
    first = first_event(tmp_path)
    assert first is not None
    assert first["run_id"] == "abc"


def test_append_to_closed_journal_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        Journal(tmp_path).append("metrics")


def test_delivery_retries_until_store_is_available(
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


def test_finish_stops_after_timeout_and_keeps_undelivered_events(tmp_path: Path, journal: Journal) -> None:
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


def test_finish_waits_for_upload_longer_than_timeout(tmp_path: Path, journal: Journal) -> None:
    journal.append("artifacts", path="x", folder=None)
    journal.append("end", status="FINISHED")
    sink = RecordingSink(lambda events: time.sleep(1) if events[0]["event"] == "artifacts" else None)
    delivery = Delivery(tmp_path, sink, interval=0.01)
    delivery.start()
    delivery.finish(timeout=0.2)
    journal.close()
    assert [event["event"] for event in sink.events] == ["artifacts", "end"]


def test_unexpected_sink_error_is_logged_and_events_are_kept(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    _append_metrics(journal, 1)
    delivery = Delivery(tmp_path, RecordingSink(lambda _: KeyError("defect")), interval=0.01)
    delivery.start()
    delivery.join(5)
    assert "Delivery to the tracking store stopped" in caplog.text
    assert undelivered(tmp_path) == 1
    journal.close()
