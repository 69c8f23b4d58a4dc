"""`--help` tells of every option that is there, and of nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config.registry import CONF


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "inspect", "doctor"])
def test_help_shows_values_and_examples(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "== Values (key=value)" in shown
    assert f"python -m experiments.{command}" in shown
    assert "schema" not in shown


def test_help_lists_the_options_of_every_group() -> None:
    template = (Path(CONF) / "config.yaml").read_text(encoding="utf-8")
    listed = {
        group: set(options.split(", "))
        for group, options in re.findall(r"^ {8}([a-z]+) +([a-z].*)$", template, flags=re.MULTILINE)
    }
    groups = [folder for folder in Path(CONF).iterdir() if folder.is_dir() and folder.name not in ("shared", "hydra")]
    assert listed == {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in groups}
