"""Prints an inspection to the terminal."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.cli.tables import cell, console
from experiments.data.inspection.findings import Inspection, size_summary
from experiments.errors import first_few


def print_report(inspection: Inspection, page: Path | None) -> None:
    terminal = console()
    terminal.print(cell(inspection.specs["train"].source))
    terminal.print(_counts(inspection))
    if inspection.sizes:
        terminal.print(Text(f"{size_summary(inspection.sizes)}."))
    terminal.print(_findings(inspection) if inspection.findings else Text("Nothing odd was found."))
    if page is not None:
        terminal.print(cell(f"With pictures: {page}"))


def _counts(inspection: Inspection) -> Table:
    specs = inspection.specs
    table = Table("class", *specs)
    for at, name in enumerate(specs["train"].class_names):
        table.add_row(cell(name), *(f"{spec.class_counts[at]}" for spec in specs.values()))
    table.add_row("all", *(f"{spec.num_examples}" for spec in specs.values()))
    return table


def _findings(inspection: Inspection) -> Table:
    table = Table("finding", "number", "meaning", "examples")
    for finding in inspection.findings:
        style = "red" if finding.wrong else ""
        title = cell(finding.title, style)
        table.add_row(title, str(len(finding.details)), cell(finding.meaning), cell(first_few(finding.details)))
    return table
