"""What a command says it is busy with, on a terminal and in a pipe."""

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tests.trainings import Trainings

STAGES = """
import sys, time
from experiments.cli.status import status_line
with status_line(sys.argv[1]) as status:
    status.update("reading")
    time.sleep(float(sys.argv[2]))
    status.stop()
    print("a line of somebody else")
    status.update("writing")
    time.sleep(float(sys.argv[2]))
"""
COLUMNS = 80
ENVIRONMENT = {"COLUMNS": str(COLUMNS), "TERM": "xterm"}


def draw_bar() -> None:
    from experiments.runs.progress import Size, progress

    size = Size(epochs=2, steps=3, validation_steps=1, batch_size=8)
    logs = {"accuracy": 0.5, "loss": 0.25, "top_5_accuracy": 0.75, "f1_score": 0.125}
    with progress("auto", size) as [bar]:
        bar.on_train_begin()
        for epoch in range(size.epochs):
            bar.on_epoch_begin(epoch)
            for step in range(size.steps):
                time.sleep(0.2)
                bar.on_train_batch_end(step, logs)
            time.sleep(0.2)
            bar.on_test_batch_end(0)
            bar.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in logs.items()})
        bar.on_train_end()


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A new one: its side for a program, and what reads all that was written to it when the program has ended."""
    ours, theirs = pty.openpty()

    def written() -> str:
        os.close(theirs)
        parts = []
        # Linux's way to say that the other side is closed is an error.
        with suppress(OSError):
            while part := os.read(ours, 65536):
                parts.append(part)
        return b"".join(parts).decode()

    yield theirs, written
    os.close(ours)


def drawn_lines(written: str) -> list[str]:
    """Every line that was ever on the screen, without colours and movements."""
    return [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", written)]


def test_a_terminal_shows_each_stage_on_a_line_that_is_taken_away() -> None:
    command = [sys.executable, "-c", STAGES, "auto", "0.3"]
    with terminal() as (theirs, all_written):
        streams: Any = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        with subprocess.Popen(command, **streams, env=os.environ | ENVIRONMENT) as process:
            written = all_written()
    assert process.returncode == 0, written
    lines = drawn_lines(written)
    assert any(line.endswith("reading ...") for line in lines)
    assert any(line.endswith("writing ...") for line in lines)
    assert "a line of somebody else" in lines
    assert written.rstrip("\r\n").endswith(("\x1b[2K", "\x1b[1A"))
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


LINES = ["reading ...", "writing ..."]


@pytest.mark.parametrize(("mode", "said"), [("auto", LINES), ("terminal", []), ("none", []), ("plain", LINES)])
def test_a_pipe_gets_plain_lines_where_asked(mode: str, said: list[str]) -> None:
    """What other code prints meanwhile goes to standard error too, because standard output is for the answer."""
    done = subprocess.run([sys.executable, "-c", STAGES, mode, "0"], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [*said[:1], "a line of somebody else", *said[1:]]


@pytest.mark.slow
def test_the_bar_says_it_all_in_one_line(trainings: Trainings) -> None:
    with (
        terminal() as (theirs, all_written),
        trainings.calling(draw_bar, terminal=os.ttyname(theirs), environment=ENVIRONMENT) as process,
    ):
        written = all_written()
        assert process.wait() == 0, written
    lines = drawn_lines(written)
    assert max(map(len, lines)) <= COLUMNS
    last = next(line for line in reversed(lines) if "step 3/3" in line)
    for words in ("epoch 2/2", "━", "images/s", "accuracy 0.500", "0:0"):
        assert words in last
    assert any("tracing the first step" in line for line in lines)
    assert any("validating" in line for line in lines)
    kept = [line for line in lines if re.match(r"epoch \d/2  ", line)]
    assert [line[:39] for line in kept] == [f"epoch {epoch}/2  accuracy 0.5000  loss 0.2500" for epoch in (1, 2)]
