"""Keeps TensorFlow's start-up notes off the terminal."""

import atexit
import gc
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:")


@contextmanager
def suppress_startup_logs() -> Iterator[None]:
    """Drops the C++ log lines written to file descriptor 2 meanwhile; shows all else at the end, everything on error.

    TF_CPP_MIN_LOG_LEVEL does not reach lines that TensorFlow writes before it has set up its log.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            os.write(2, b"".join(line for line in held if failed or not _NOTE.match(line)))


class WithoutRetracingNotes(logging.Filter):
    """Drops TensorFlow's advice on repeated tracing: it counts the jobs of a sweep, each with a model of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def without_gc(package: str = "tensorflow") -> Iterator[None]:
    """Keeps Python's garbage collector from the imports meanwhile, and from what they made for good.

    package: the heaviest. Where it is there already nothing is done, as there may be garbage by then.

    They make half a million objects that live as long as the process. Looking through them again and again is a
    quarter of the time of the imports, and 0.3 s of every later collection. What there is when the process ends is not
    looked through either: that takes 1.3 s of processor time, and whoever stopped it waits.
    """
    if not gc.isenabled() or package in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
