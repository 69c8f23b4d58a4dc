"""Standard output carries the answer of a command and nothing else."""

import csv
import io
import json
import sys
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from experiments.cli.status import status_line
from experiments.cli.tables import write
from experiments.config import register
from experiments.config.registry import CONF

ROWS = [{"run_id": "a, b", "loss": 0.25}, {"run_id": 'c "d"', "loss": 1e-7}]


@pytest.mark.parametrize("command", ["config", "evaluate", "predict", "compare", "inspect", "doctor"])
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


ID = "0123456789abcdef" * 2
RUN = {"run_id": ID, "checkpoint": "best", "split": "validation", "examples": 171}
PACK = {"kind": "pack", "state": "in progress", "source": "/data/photos of 2026/cats_dogs", "MB": "1,024.5"}
TABLES: list[tuple[dict[str, Any], dict[str, list[str]], list[str]]] = [
    # a row, arguments of `write`, and the cells that 80 columns show
    ({"path": "cat.jpg", "class": "cats"}, {}, ["cat.jpg", "cats"]),
    ({"path": "/photos/" + "x" * 80 + "/cat.jpg", "class": "cats"}, {}, ["…" + "x" * 59 + "/cat.jpg", "cats"]),
    ({**RUN, "loss": 0.25, "accuracy": 0.9}, {}, [f"{ID[:18]}…", "best", "validation", "171", "0.2500", "0.9000"]),
    (
        {**RUN, **{f"metric_{number}": 0.5 for number in range(5)}},
        {"optional": ["checkpoint", "split", "examples", "run_id"]},
        [f"{ID[:20]}…", *["0.5000"] * 5],
    ),
    ({**PACK, "made": 1}, {"optional": ["made"]}, [*PACK.values(), "1"]),
    (
        {**PACK, **dict.fromkeys("abcd", "x" * 40)},
        {"optional": ["b", "a", "c"]},
        ["pack", "in progress", "…26/cats_dogs", "1,024.5", "x" * 12 + "…", "x" * 12 + "…"],
    ),
    ({f"{number:02}": "x" * 20 for number in range(12)}, {}, ["xx…"] * 12),
    ({"name": "y" * 90, "state": "lost " * 9}, {"wrapped": ["state"]}, ["y" * 35 + "…", ("lost " * 7).strip()]),
]


@pytest.mark.parametrize(("row", "options", "expected"), TABLES)
def test_table_fits_the_terminal(
    row: dict[str, Any],
    options: dict[str, list[str]],
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # without styles
    write([row, row], "table", **options)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells[0] == expected
    assert len(cells) == 2 if "wrapped" not in options else cells[1] == ["", "lost lost"]
