"""A job that does not hear that its time is over, as native code does not let Python hear it."""

import subprocess
import sys
from pathlib import Path

import pytest

HANGS = {
    "keeps the interpreter": "collections.deque(itertools.repeat(0), maxlen=0)",
    "waits without it": "[ctypes.CDLL(None).pthread_mutex_lock(mutex) for _ in range(2)]",
}
SCRIPT = """
import collections, ctypes, itertools, sys
from pathlib import Path
from experiments.sweeps import failures

failures.GRACE_SECONDS = 2
mutex = ctypes.create_string_buffer(64)

def native():
    {hang}

with failures.time_limit(0.5, Path(sys.argv[1])):
    native()
"""


@pytest.mark.parametrize("hang", HANGS)
def test_its_process_ends_and_says_where(tmp_path: Path, hang: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(hang=HANGS[hang]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in native" in (tmp_path / "timeout.txt").read_text()
