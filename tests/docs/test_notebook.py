"""The notebook of the documentation: its cells run, and the stored outputs are those of all cells."""

import runpy
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_notebook_runs_and_its_outputs_are_stored() -> None:
    new = runpy.run_path(str(DOCS / "execute_notebook.py"))["executed"]()
    stored = nbformat.read(DOCS / "guides" / "notebook.ipynb", as_version=4)
    for mine, theirs in zip(new.cells, stored.cells, strict=True):
        assert [kinds(each) for each in mine.get("outputs", [])] == [kinds(each) for each in theirs.get("outputs", [])]
    assert "/tmp" not in nbformat.writes(stored)


def kinds(output: nbformat.NotebookNode) -> list[str]:
    """Type of an output and of its data. Values differ with processor and clock."""
    return [output.output_type, *sorted(output.get("data", {}))]
