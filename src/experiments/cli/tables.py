"""Output of rows as a table, CSV or JSON."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.cli.safe_text import visible

Row = Mapping[str, Any]


def write(rows: Sequence[Row], layout: str) -> None:
    """Writes rows, which all have the same keys, to standard output. `layout` is table, csv or json."""
    {"table": _table, "csv": _csv, "json": _json}[layout](rows)


def _table(rows: Sequence[Row]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(cell, row.values()))
    # A pipe has no width: the default of 80 columns would cut names that users search for.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table, soft_wrap=False)


def cell(value: Any, style: str = "") -> Text:
    """Returns a rich Text, because [brackets] in a plain string are markup. Control characters are escaped."""
    return Text(visible(f"{value:.4f}" if isinstance(value, float) else str(value)), style, overflow="fold")


def escaped(row: Row) -> dict[str, Any]:
    return {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}


def _csv(rows: Sequence[Row]) -> None:
    writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(escaped, rows))


def _json(rows: Sequence[Row]) -> None:
    # The escapes of `visible` are not JSON; the standard escapes of JSON, such as \u009b, keep the values.
    text = json.dumps(list(rows), ensure_ascii=False, indent=1)
    print(text if visible(text, keep="\n") == text else json.dumps(list(rows), indent=1))
