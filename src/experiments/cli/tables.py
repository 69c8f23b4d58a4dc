"""Output of rows as a table, CSV or JSON."""

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from experiments.cli.safe_text import shortened, visible

Row = Mapping[str, Any]
NARROWEST = 12
"""Width to which texts are shortened before columns are left out."""
# Texts that a spreadsheet would execute; they get an apostrophe.
_FORMULA = re.compile(r"\A(?=[=+\-@](?![\d.]+(?:e[+\-]?\d+)?\Z))")


def write(rows: Sequence[Row], layout: str, optional: Sequence[str] = (), wrapped: Sequence[str] = ()) -> None:
    """Writes rows, which all have the same keys, to standard output. `layout` is table, csv or json.

    A table that is too wide for the terminal has texts on several lines in the columns `wrapped`, and shortened ones in
    the others. If they would be shorter than NARROWEST, columns are left out, in the order of `optional`.
    """
    if layout == "table":
        _table(rows, optional, wrapped)
    elif layout == "csv":
        write_csv(rows, sys.stdout)
    else:
        # The escapes of `visible` are not JSON; the standard escapes of JSON, such as \u009b, keep the values.
        text = json.dumps(list(rows), ensure_ascii=False, indent=1)
        print(text if visible(text, keep="\n") == text else json.dumps(list(rows), indent=1))


def console() -> Console:
    # A pipe has no width: the default of 80 columns would cut names that users search for.
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def _table(rows: Sequence[Row], optional: Sequence[str], wrapped: Sequence[str]) -> None:
    texts = [{name: str(cell(value)) for name, value in row.items()} for row in rows]
    widths = {name: max(map(cell_len, (name, *(row[name] for row in texts)))) for name in rows[0]}
    available = console().width

    def fits(limit: int) -> bool:
        return sum(min(width, limit) + len(" │ ") for width in widths.values()) < available

    hidden = []
    for name in optional:
        if not fits(NARROWEST):
            del widths[name]
            hidden.append(name)
    limit = next((limit for limit in range(max(widths.values()), 2, -1) if fits(limit)), 2)
    table = Table(*(Column(cell(shortened(name, limit)), max_width=limit) for name in widths))
    for row in texts:
        table.add_row(*(cell(row[name] if name in wrapped else shortened(row[name], limit)) for name in widths))
    console().print(table)
    if hidden:
        console().print(f"Not shown: {', '.join(hidden)}.")


def cell(value: Any, style: str = "") -> Text:
    """Returns a rich Text, because [brackets] in a plain string are markup. Control characters are escaped."""
    text = f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
    return Text(visible(text), style, overflow="fold")


def write_csv(rows: Iterable[Row], file: TextIO) -> None:
    """Writes rows, which all have the same keys. An apostrophe precedes text that a spreadsheet would execute."""
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            # The keys of a sweep may begin with a plus, and scripts read columns by them.
            writer.writerow(name if name.startswith("+") else _escaped(name) for name in row)
        writer.writerow(map(_escaped, row.values()))


def _escaped(value: Any) -> Any:
    return _FORMULA.sub("'", visible(value)) if isinstance(value, str) else value
