"""TensorFlow's notes about the machine stay off the terminal; everything else reaches it."""

import io
import logging.config
import os
import shlex
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("arguments", ["", "--version", "help model", "train --help", "doctor format=json"])
def test_closed_pipe_ends_a_command_without_a_message(arguments: str, tmp_path: Path) -> None:
    """As `experiments help model | head` does if `head` ends first."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "experiments", *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_process_without_standard_output_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m experiments --version >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_other_broken_pipes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def send() -> None:
        raise BrokenPipeError("the server hung up")

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as ended:
        run_command(send, "config")
    assert "BrokenPipeError: the server hung up" in str(ended.value.code)
