"""File systems mounted for a test, which are really full or read-only."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def tmpfs(size: str) -> list[str]:
    """Options with which `mounted` mounts an empty file system of this size in memory."""
    return ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mounts a file system on `folder` during a test. Skips the test if the machine does not permit mounting."""
    folder.mkdir(parents=True)
    try:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
        reason = done.stderr.strip()
    except FileNotFoundError as error:
        reason = str(error)
    if reason:
        pytest.skip(f"mounting a file system is not permitted here: {reason}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
