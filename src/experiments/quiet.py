"""Keeps TensorFlow's start-up notes off the terminal."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:")


@contextmanager
def quiet_start() -> Iterator[None]:
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
