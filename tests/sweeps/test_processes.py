"""Signals of the sweep process to its workers."""

import os
import signal
import time

import pytest

from experiments.cli.signals import Interruption
from experiments.sweeps.processes import NOTICE_SECONDS, STOP, at_work


def test_stopped_worker_that_prepares_a_job_does_not_train_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a worker that a launcher has started
    try:
        with at_work() as stopped:
            os.kill(os.getpid(), STOP)
            assert stopped()
            with pytest.raises(SystemExit) as raised, Interruption().deferred():
                time.sleep(2 * NOTICE_SECONDS)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert raised.value.code == 128 + signal.SIGTERM
