"""Control characters in names, values and messages reach neither the terminal nor a table unescaped."""

import csv
import json
import logging
import signal
from io import StringIO

import pytest
from rich.console import Console

from experiments.cli.entry import run_command
from experiments.cli.safe_text import SafeFormatter, safe_text, visible
from experiments.cli.signals import STOPPING
from experiments.cli.tables import cell, write, write_csv
from experiments.errors import DataError

HOSTILE = "cat\x1b[2J\x1b]0;title\x07\x9b31m\nfake line\r\t\u202egpj\u2066x\u2028y\x7f"
ESCAPED = r"cat\x1b[2J\x1b]0;title\x07\x9b31m\nfake line\r\t\u202egpj\u2066x\u2028y\x7f"
ORDINARY = "Zwischen ü, 写真, עברית, भारत, 👩\u200d🔬, [bold]"


def test_control_characters_are_escaped() -> None:
    assert visible(HOSTILE) == ESCAPED
    assert visible(HOSTILE, keep="\n\t") == ESCAPED.replace(r"\n", "\n").replace(r"\t", "\t")
    assert visible("not utf-8: \udcff") == r"not utf-8: \udcff"
    assert visible(ORDINARY) == ORDINARY


def test_secrets_are_masked_before_control_characters_are_escaped() -> None:
    assert safe_text("password=a\x1bb9 rest") == "password=*** rest"


@pytest.mark.parametrize("layout", ["table", "csv", "json"])
def test_tables_contain_no_control_characters(layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    write([{"name": HOSTILE, "value": 0.5}, {"name": ORDINARY, "value": 1}], layout)
    shown = capsys.readouterr().out
    assert visible(shown, keep="\r\n") == shown
    if layout == "json":
        assert json.loads(shown) == [{"name": HOSTILE, "value": 0.5}, {"name": ORDINARY, "value": 1}]
    elif layout == "csv":
        assert [row["name"] for row in csv.DictReader(StringIO(shown))] == [ESCAPED, ORDINARY]
    else:
        assert ESCAPED in shown
        assert ORDINARY in shown


FORMULAS = ("=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2+3", "-a", "=", "-1e")
VALUES = ("-1", "+0.5", "a=b", "", "1-2", "val_accuracy", " =1", "'=1")


def test_spreadsheets_do_not_execute_names() -> None:
    rows = [{"name": text, "number": -1.5} for text in (*FORMULAS, *VALUES)]
    write_csv(iter(rows), file := StringIO())
    shown = [row["name"] for row in csv.DictReader(StringIO(file.getvalue()))]
    assert shown == [*(f"'{text}" for text in FORMULAS), *VALUES]
    assert file.getvalue().startswith("name,number\n'=1+1,-1.5\n")
    write_csv([], file := StringIO())
    assert file.getvalue() == ""


def test_cell_of_a_table_has_one_line() -> None:
    console = Console(file=StringIO(), width=200, force_terminal=True)
    console.print(cell(HOSTILE))
    assert console.file.getvalue() == f"{ESCAPED}\n"  # type: ignore[attr-defined]


def test_log_lines_are_masked_and_escaped(caplog: pytest.LogCaptureFixture) -> None:
    formatter = SafeFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError(f"password=geheim9 {HOSTILE}")
    except ValueError:
        logging.getLogger("test").exception("token: %s\x1b", "geheim7")
    text = formatter.format(caplog.records[-1])
    assert text.startswith("ERROR token: ***\nTraceback (most recent call last):\n")
    assert "geheim" not in text
    assert visible(text, keep="\n\t") == text


IN_ONE_LINE = r"cat\x1b[2J\x1b]0;title\x07\x9b31m fake line \u202egpj\u2066x y\x7f"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError(f"class {HOSTILE} with token=geheim9"), f"error: class {IN_ONE_LINE} with token=***"),
        (RuntimeError("\x1b[31m token=geheim9"), "\nRuntimeError: \\x1b[31m token=***"),
    ],
)
def test_errors_are_masked_and_escaped(error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    # The command sets this variable and the handlers of signals; other tests of this process must not inherit them.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    with pytest.raises(SystemExit) as stop:
        run_command(fail, "config")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert str(stop.value.code).endswith(expected)
    assert visible(str(stop.value.code), keep="\n") == str(stop.value.code)
