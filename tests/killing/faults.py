"""Kills or signals this process at a chosen point, or counts how often each point is reached."""

import json
import os
import pkgutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from typing import Any, NoReturn

from experiments.tracking.journal import Journal

JOURNAL_LINE = "journal line"
CALLS = (
    JOURNAL_LINE,
    "os.fsync",
    "os.truncate",
    "pathlib.Path.replace",
    "pathlib.Path.unlink",
    "numpy.savez",
    "tensorflow.train.CheckpointManager.save",
    "tensorflow.train.CheckpointManager._record_state",
    "tensorflow.train.CheckpointManager._sweep",
    "experiments.checkpoints.callback.commit",
    "experiments.checkpoints.callback.remove_uncommitted",
    "experiments.checkpoints.best.restore_weights",
    "experiments.checkpoints.callback.Checkpoints.on_train_batch_end",
    "experiments.checkpoints.callback.Checkpoints.on_test_batch_end",
    "experiments.checkpoints.callback.Checkpoints.on_epoch_end",
    "experiments.loops.evaluation.Evaluation.__call__",
    "experiments.runs.run.write_snapshot",
    "experiments.runs.figures.draw",
    "experiments.runs.saved_model.save_model",
    "mlflow.MlflowClient.create_run",
    "mlflow.MlflowClient.update_run",
    "mlflow.MlflowClient.log_batch",
    "mlflow.MlflowClient.log_inputs",
    "mlflow.MlflowClient.log_artifacts",
    "mlflow.MlflowClient.log_artifact",
    "mlflow.MlflowClient.create_logged_model",
    "mlflow.MlflowClient.log_model_artifacts",
    "mlflow.MlflowClient.log_outputs",
    "mlflow.MlflowClient.finalize_logged_model",
    "mlflow.MlflowClient.set_terminated",
    "shutil.copyfile",
)
"""Dotted names of functions that a run calls before, after and between all of its writes."""
SIGNALLED = "signalled.json"
COUNTS = "counts.json"
Fault = dict[str, Any]
"""{"after": seconds}, or {"call", "number": n, "when"}: before or after the n-th call, "torn" (half of the journal line
is written), "without_index" (TensorFlow has written only its data file), or "during" (`milliseconds` after the start of
the call). "signal": KILL by default; "times": how often the signal is sent."""


def set_up(fault: Fault | None, count: bool) -> None:
    if count:
        _count()
    elif fault and "after" in fault:
        _after_delay(fault["after"], fault)
    elif fault:
        _at_call(fault)


def _send_signal(fault: Fault) -> None:
    """Sends the signal to this process. Returns only if the process handles the signal."""
    Path(SIGNALLED).write_text(json.dumps(time.time()), encoding="ascii")
    for _ in range(fault.get("times", 1)):
        os.kill(os.getpid(), signal.Signals[f"SIG{fault.get('signal', 'KILL')}"])


def _kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


def _after_delay(seconds: float, fault: Fault) -> None:
    def wait() -> None:
        time.sleep(seconds)
        _send_signal(fault)

    threading.Thread(target=wait, daemon=True).start()


def _at_call(fault: Fault) -> None:
    calls = 0

    def around(original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != fault["number"]:
            return original(*arguments, **options)
        return _call_with_fault(fault, original, *arguments, **options)

    _wrap(fault["call"], around)


def _call_with_fault(fault: Fault, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    match fault["when"]:
        case "before":
            _send_signal(fault)
        case "torn":
            original(arguments[0][: len(arguments[0]) // 2])
            _kill()
        case "without_index":
            max(Path.cwd().rglob("*.index"), key=lambda path: path.stat().st_mtime_ns).unlink()
            _kill()
        case "during":
            _after_delay(fault["milliseconds"] / 1000, fault)
    result = original(*arguments, **options)
    if fault["when"] == "after":
        _send_signal(fault)
    return result


def _count() -> None:
    """Counts all calls and writes the counts when the process ends."""
    counts: Counter[str] = Counter()

    def counted(call: str) -> Callable[..., Any]:
        def around(original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            counts[call] += 1
            return original(*arguments, **options)

        return around

    for call in CALLS:
        _wrap(call, counted(call))
    leave = os._exit

    def leave_counts(status: int) -> NoReturn:
        Path(COUNTS).write_text(json.dumps(counts), encoding="ascii")
        leave(status)

    os._exit = leave_counts


def _wrap(call: str, around: Callable[..., Any]) -> None:
    """Replaces the function with one that calls `around(original, *arguments)`."""
    if call == JOURNAL_LINE:
        _wrap_journal(around)
        return
    owner_name, _, name = call.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    setattr(owner, name, wrapped)


class _Lines:
    """File of a journal. Writes each line immediately."""

    def __init__(self, file: BufferedWriter, around: Callable[..., Any]) -> None:
        self._file, self._around = file, around

    def write(self, line: bytes) -> None:
        self._around(self._write, line)

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def flush(self) -> None:
        """Does nothing, because each line is flushed when it is written."""

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def _wrap_journal(around: Callable[..., Any]) -> None:
    opened = Journal.open

    def open_and_wrap(journal: Journal) -> None:
        opened(journal)
        journal._file = _Lines(journal._file, around)  # type: ignore[assignment,arg-type]

    setattr(Journal, "open", open_and_wrap)  # noqa: B010 -- mypy refuses to assign to a method
