"""File systems in memory, made for a test: they really are full, or cannot be written."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def tmpfs(size: str) -> list[str]:
    """What `mounted` takes for an empty one of this size."""
    return ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Until the test is over; skips it on a machine that lets nobody mount."""
    folder.mkdir(parents=True)
    try:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
        reason = done.stderr.strip()
    except FileNotFoundError as error:
        reason = str(error)
    if reason:
        pytest.skip(f"this machine lets nobody mount a file system here: {reason}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
