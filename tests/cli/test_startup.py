"""TensorFlow's notes about the machine stay off the terminal; everything else reaches it."""

import io
import logging.config
import os

import absl.logging
import pytest

from experiments.cli.entry import run_command
from experiments.cli.startup import suppress_startup_logs

NOTES = b"""WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795401209.213375   16803 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1795401217.379869   16803 cuda_platform.cc:52] failed call to cuInit
W0000 00:00:1795401217.379869   16803 some.cc:1] a note
"""
WORDS = b"a warning of a package of my own\n"


def fail_to_start() -> None:
    with suppress_startup_logs():
        os.write(2, NOTES + WORDS)
        raise ImportError("no libtensorflow")


def test_notes_are_dropped_and_words_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress_startup_logs():
        os.write(2, NOTES + WORDS)
    assert capfd.readouterr().err == WORDS.decode()


def test_an_error_shows_everything(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError):
        fail_to_start()
    assert capfd.readouterr().err == (NOTES + WORDS).decode()


def test_the_terminal_is_back_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress_startup_logs():
        pass
    os.write(2, NOTES)
    assert capfd.readouterr().err == NOTES.decode()


def test_streams_of_others_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is that of a notebook in which TensorFlow was imported, for example."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    before = io.StringIO()
    absl.logging.get_absl_handler().python_handler.setStream(before)
    run_command(lambda: logging.config.dictConfig({"version": 1, "disable_existing_loggers": False}), "config")
    assert not before.closed
