"""Executes the notebook of the documentation in a temporary folder: `make notebook` stores the new outputs."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "guides" / "notebook.ipynb"
SECONDS = 300
"""Time limit of a cell."""


def executed() -> nbformat.NotebookNode:
    """Returns the notebook with new outputs. Raises CellExecutionError if a cell fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, resources={"metadata": {"path": folder}}, coalesce_streams=True
        )
        client.execute(env={**os.environ, "COLUMNS": "100"})
        text = nbformat.writes(notebook).replace(f"{folder}/", "")
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
    sys.stderr.write(f"{NOTEBOOK} is executed.\n")
