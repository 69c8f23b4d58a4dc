"""Standard output carries the answer of a command and nothing else."""

import csv
import io
import json
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from experiments.cli.status import status_line
from experiments.cli.tables import write
from experiments.config import register
from experiments.config.registry import CONF

ROWS = [{"run_id": "a, b", "loss": 0.25}, {"run_id": 'c "d"', "loss": 1e-7}]


@pytest.mark.parametrize("command", ["config", "evaluate", "predict", "inspect", "doctor"])
def test_log_lines_go_to_standard_error(command: str) -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        hydra = compose(command, overrides=["path=x"] if command == "predict" else [], return_hydra_config=True).hydra
    for logging in (hydra.job_logging, hydra.hydra_logging):
        classes = [handler["class"] for handler in logging.handlers.values() if "stream" in handler]
        assert classes == ["experiments.cli.safe_text.TerminalHandler"]


def test_csv_has_line_feeds_and_the_values_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    write(ROWS, "csv")
    text = capsys.readouterr().out
    assert "\r" not in text
    write(ROWS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS
    assert [{**row, "loss": float(row["loss"])} for row in csv.DictReader(io.StringIO(text))] == ROWS


@pytest.mark.parametrize("mode", ["auto", "terminal", "none", "plain"])
def test_text_of_other_code_goes_to_standard_error(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    with status_line(mode):
        print("Downloading data")
    print("answer")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("answer\n", "Downloading data\n")
    assert sys.stdout is not sys.stderr
