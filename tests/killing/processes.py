"""Starts trainings as forks of one process that has imported TensorFlow but not used it."""

import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.killing import faults

from experiments.cli.entry import run_command
from experiments.train import main

LOADED_ONCE = (
    "experiments.data.inspection.page",
    "experiments.data.inspection.terminal",
    "experiments.models.applications",
    "experiments.models.cnn",
    "experiments.records.finished_run",
    "experiments.runs.predictor",
    "experiments.repair.checks",
    "experiments.cli.report",
    "experiments.runs.run",
    "experiments.sweeps.queue",
    "experiments.tracking.mlflow_tracker",
    "matplotlib.backends.backend_agg",
    "mlflow.keras",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "sklearn.datasets",
    "sqlalchemy.dialects.sqlite",
    "tensorboard.summary.v2",
)
"""Modules that are imported before the first fork, so that no command spends time on them."""
for name in LOADED_ONCE:
    import_module(name)


WORKERS = "hydra/launcher=joblib"


def train(folder: Path, overrides: Sequence[str], fault: faults.Fault | None, *, count: bool = False) -> int:
    """Returns the exit status of the training, or minus the number of the signal that ended it."""

    def begin() -> None:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _fork_workers(overrides)
        faults.set_up(fault, count)
        sys.argv = ["train.py", *overrides]
        run_command(main, "config")

    return _forked(begin)


def start(folder: Path, door: str, words: Sequence[str], streams: Sequence[str], *, group: bool = False) -> int:
    """Starts `python -m experiments.DOOR WORDS` in `folder` and returns the process id.

    streams: paths of its input, output and error; group: whether it leads a process group, as at a terminal.
    """

    def begin() -> None:
        if group:
            os.setsid()
        os.chdir(folder)
        sys.path[0] = str(folder)
        _fork_workers(words)
        module = f"experiments.{door}"
        sys.orig_argv = [sys.executable, "-m", module, *words]
        sys.argv = [door, *words]
        # Python warns if the module to run is already imported.
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    return _fork(begin, streams)


def call(function: str, arguments: Sequence[Any], environment: Mapping[str, str], streams: Sequence[str]) -> int:
    """Calls the test function `MODULE:NAME` in a fork and returns its process id. `arguments` must be valid JSON."""

    def begin() -> None:
        os.environ.update(environment)
        module, _, name = function.partition(":")
        getattr(import_module(module), name)(*arguments)

    return _fork(begin, streams)


def _fork_workers(words: Sequence[str]) -> None:
    """Makes the workers of a parallel sweep forks too."""
    if WORKERS in words:
        from tests.killing.loky import fork_workers  # imports this module

        fork_workers()


def ended(process: int, *, wait: bool) -> int | None:
    """Returns the exit status of the process, or minus the number of its signal; None if it is still running."""
    found, status = os.waitpid(process, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Returns the result of `work`, valid JSON. A process that forks later must not use TensorFlow itself."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        status = _forked(lambda: answer.write_text(json.dumps(work()), encoding="utf-8"))
        if status != 0:
            raise RuntimeError(f"reading a run ended with status {status}")
        return json.loads(answer.read_text(encoding="utf-8"))


def _forked(work: Callable[[], Any]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_fork(work), 0)[1])


def _fork(work: Callable[[], Any], streams: Sequence[str] = ()) -> int:
    """Forks and returns the process id of the child. The streams are open before that."""
    opened = [os.open(path, os.O_RDWR | os.O_NOCTTY) for path in streams]
    child = os.fork()
    if child == 0:
        for number, descriptor in enumerate(opened):
            os.dup2(descriptor, number)
        save_results(work)
    for descriptor in opened:
        os.close(descriptor)
    return child


def save_results(work: Callable[[], Any]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        # The same exit status as Python's own.
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
