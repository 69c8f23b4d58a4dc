"""The garbage collector rests while a heavy package loads, once."""

import subprocess
import sys

SCRIPT = """
import gc
from experiments.cli.startup import without_gc

with without_gc("mailbox"):
    import mailbox
    assert not gc.isenabled()
    kept = [[] for _ in range(1000)]
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 1000
with without_gc("mailbox"):
    assert gc.isenabled()
    more = [[] for _ in range(1000)]
assert gc.isenabled() and gc.get_freeze_count() == frozen
"""


def test_the_collector_rests_once() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


END = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() - frozen >= 1000))
from experiments.cli.startup import without_gc
with without_gc():
    pass
frozen = gc.get_freeze_count()
kept = [[] for _ in range(2000)]
"""


def test_the_end_of_the_process_looks_through_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
