"""A signal is noted, and ends the process when the step is done."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.cli.signals import SIGNALS, Interruption

TWO_SIGNALS = """
import os, signal, sys, time
from experiments.cli.signals import Interruption
interruption = Interruption()
with interruption.deferred():
    os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    print("going on", flush=True)
    os.kill(os.getpid(), signal.Signals[sys.argv[2]])
    print("still going on", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_is_finished_first(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    interruption, done = Interruption(), []

    def train() -> None:
        with interruption.deferred():
            os.kill(os.getpid(), number)
            done.append("the step")
            interruption.end()

    with pytest.raises(SystemExit) as ended:
        train()
    assert ended.value.code == 128 + number
    assert caplog.messages == [
        f"Stopped by {signal.Signals(number).name}; all completed work is saved. "
        "Resume with resume=last, or with sweep.resume=last for a sweep."
    ]
    assert done == ["the step"]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_the_end_is_late_enough() -> None:
    with pytest.raises(SystemExit), Interruption().deferred():
        os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_signal_nothing_ends() -> None:
    interruption = Interruption()
    with interruption.deferred():
        interruption.end()
    assert interruption.signal is None


def test_an_error_is_told_before_a_signal() -> None:
    def fail() -> None:
        with Interruption().deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGTERM"), ("SIGINT", "SIGINT")])
def test_a_second_signal_ends_at_once(first: str, second: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS, first, second], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.Signals[second], "going on\n")


def test_in_another_thread_signals_are_somebody_elses() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> bool:
        with Interruption().deferred():
            return signal.getsignal(signal.SIGTERM) == before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result()


REPLACED = """
import os, signal, sys
from omegaconf import OmegaConf
from experiments.cli.entry import one_line_errors, run_command

class FailsIfInterrupted:
    def __enter__(self): pass
    def __exit__(self, *error):
        if error[0] is not None:
            raise AttributeError("clean-up failed")

@one_line_errors
def main(cfg):
    try:
        with FailsIfInterrupted():
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    except AttributeError as error:
        raise ValueError("wrapped") from error

run_command(lambda: main(OmegaConf.create()), "config", overrides=False)
"""


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_status_is_that_of_the_signal_if_another_error_replaced_it(sent: str) -> None:
    done = subprocess.run([sys.executable, "-c", REPLACED, sent], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.Signals[sent], "")
