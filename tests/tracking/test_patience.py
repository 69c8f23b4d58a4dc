"""Waiting for a store: its limits, its announcements and its end at a signal."""

import logging
import signal
import threading
import time
from collections.abc import Callable

import pytest

from experiments.cli.signals import Interruption
from experiments.errors import ExperimentError
from experiments.tracking import patience
from experiments.tracking.journal import Outage, Unavailable
from experiments.tracking.patience import most_patience, patiently, received, waiting


def failing(times: float) -> Callable[[], str]:
    """A call that fails `times` times, as if the store were unavailable."""
    calls = 0

    def call() -> str:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise OSError("refused")
        return "answer"

    return call


def judged(error: Exception) -> Exception:
    return Outage(str(error)) if isinstance(error, OSError) else error


def test_wait_is_announced_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for times, lines in (
        (0, []),
        (1, []),  # as for a connection that the server has closed
        (2, ["The shelf is unavailable; waiting up to 9 s: refused", "The shelf answers again."]),
    ):
        caplog.clear()
        assert patiently(failing(times), 9, judged, "shelf") == "answer"
        assert caplog.messages == lines


@pytest.mark.parametrize(
    ("seconds", "most", "message"),
    [(0, 9, "refused"), (9, 0, "refused"), (0.2, 9, "the shelf is unavailable: refused Try again when it answers.")],
)
def test_wait_is_limited(seconds: float, most: float, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as raised, waiting(most_patience, most):
        patiently(failing(99), seconds, judged, "shelf")
    assert str(raised.value) == message
    assert not isinstance(raised.value, Outage)  # an outer call must not wait again
    assert time.monotonic() - began < 1


def test_other_errors_pass_unchanged() -> None:
    for error in (KeyError("x"), ExperimentError("y")):

        def call(error: Exception = error) -> str:
            raise error

        with pytest.raises(type(error)) as raised:
            patiently(call, 9, judged)
        assert raised.value is error


def test_deferred_signal_ends_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler raises no exception, so that the run can save a checkpoint afterwards."""
    monkeypatch.setattr(patience, "LEAVING_SECONDS", 0.2)
    began = time.monotonic()

    def wait() -> None:
        with Interruption().deferred(), pytest.raises(Unavailable, match="unavailable: refused"):
            patiently(failing(99), 60, judged)

    threading.Timer(0.7, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)).start()
    with pytest.raises(SystemExit) as raised:
        wait()
    assert raised.value.code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2


def test_process_that_ends_still_waits_for_short_outage() -> None:
    received.append(signal.SIGTERM)
    assert patiently(failing(2), 60, judged) == "answer"
    began = time.monotonic()
    with pytest.raises(Unavailable, match="unavailable: refused"):
        patiently(failing(99), 60, judged)
    assert 0.9 < time.monotonic() - began <= patience.LEAVING_SECONDS
