"""Start and end of a process: faster and quieter imports of TensorFlow and MLflow, and a closed standard output."""

import atexit
import gc
import logging
import os
import re
import select
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:")


def quiet_environment() -> None:
    """Silences libraries, by variables that are not set yet. To be called before the libraries are imported."""
    # TensorFlow logs pages of notes on the machine at start-up; errors are still shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # By default MLflow reports its use over the network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # MLflow loads tqdm, which warns in notebooks without ipywidgets. Its bars are not used.
    warnings.filterwarnings("ignore", "IProgress not found")


@contextmanager
def suppress_startup_logs() -> Iterator[None]:
    """Filters TensorFlow's C++ start-up messages from stderr. If the block raises, nothing is filtered.

    Other output is shown after the block. TF_CPP_MIN_LOG_LEVEL has no effect on messages that TensorFlow writes before
    its log is initialized.
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


@contextmanager
def closed_pipe_exits() -> Iterator[None]:
    """Exits with status 1 and without a message if the reader of standard output, such as `head`, ends early."""
    try:
        yield
    except BrokenPipeError:
        exit_if_unread()
        raise
    finally:
        try:
            print(end="", flush=True)  # unlike sys.stdout.flush(), accepts that the process has no standard output
        except OSError:
            exit_if_unread()  # Python reports other errors at exit


def exit_if_unread() -> None:
    """Exits with status 1 if standard output is a pipe without a reader. Other pipes, such as sockets, break too."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        # Python flushes the stream at exit, and would report the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


class WithoutRetracingNotes(logging.Filter):
    """Drops TensorFlow's warning on repeated tracing, which the jobs of a sweep cause, as each has its own model."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()


class WithoutHistory(logging.Filter):
    """Drops the lines of epochs from the terminal, which shows them already."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != "experiments.history"


@contextmanager
def without_gc(package: str = "tensorflow") -> Iterator[None]:
    """Disables garbage collection during heavy imports, then freezes the imported objects.

    Does nothing if `package`, the heaviest of the imports, is already imported, because there may be garbage then.
    The imports create half a million objects that live as long as the process. Collecting among them takes a quarter of
    the time of the imports, and 0.3 s of every later collection. The objects that remain at exit are frozen too, which
    saves 1.3 s of CPU time.
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
