"""Output of rows as a table, CSV or JSON."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


def write(rows: Sequence[Row], layout: str) -> None:
    """Writes rows, which all have the same keys, to standard output. `layout` is table, csv or json."""
    {"table": _table, "csv": _csv, "json": _json}[layout](rows)


def _table(rows: Sequence[Row]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(_text, row.values()))
    # A pipe has no width: the default of 80 columns would cut names that users search for.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    console.print(table, soft_wrap=False)


def _text(value: Any) -> Text:
    """Returns a rich Text, because [brackets] in a plain string are markup."""
    return Text(f"{value:.4f}" if isinstance(value, float) else str(value), overflow="fold")


def _csv(rows: Sequence[Row]) -> None:
    writer = csv.DictWriter(sys.stdout, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)


def _json(rows: Sequence[Row]) -> None:
    json.dump(list(rows), sys.stdout, ensure_ascii=False, indent=1)
    print()
