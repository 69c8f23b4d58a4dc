"""The command: a table at the terminal, a page beside it, and nothing else left behind."""

import subprocess
import sys
from pathlib import Path


def inspected(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "experiments.inspect", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_command_prints_and_writes_a_page(tmp_path: Path) -> None:
    shown = inspected(tmp_path, "data=digits", "samples=2")
    assert shown.splitlines()[0] == "sklearn.datasets.load_digits"
    assert "every one is 8 x 8 pixels." in shown
    assert shown.endswith("With pictures: inspect.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["inspect.html"]


def test_without_a_page_nothing_is_written(tmp_path: Path) -> None:
    assert "Nothing odd was found." in inspected(tmp_path, "data=digits", "output=null")
    assert list(tmp_path.iterdir()) == []
