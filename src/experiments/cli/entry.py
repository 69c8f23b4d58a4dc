"""Entry point of every command: errors become one line and exit status 1."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.cli.help import register_help
from experiments.cli.signals import STOPPING
from experiments.config.explain import EXPLAINED, explain, unwritable_output
from experiments.config.registry import CONF

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""What the person asked for, before `run_command` takes the variable over."""


def run_command(main: Callable[[], object], config_name: str) -> None:
    """Runs a Hydra main; HYDRA_FULL_ERROR=1 shows tracebacks instead of one line."""
    # TensorFlow greets with pages of notes about the machine; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # MLflow reports its own use over the network otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Hydra would print its own report and exit; with this it raises, and the nearest key can be named.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _keep_streams_open()
    register_help()
    # So that a run that a scheduler stops ends as killed.
    for number in STOPPING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except EXPLAINED as error:
        _fail(error, config_name)
    except (OSError, ValueError) as error:
        unwritable = unwritable_output(error)
        if unwritable is None:
            raise
        _fail(unwritable, config_name)
    except KeyboardInterrupt:
        if TRACEBACKS:
            raise
        sys.exit(128 + signal.SIGINT)


def _keep_streams_open() -> None:
    """Where TensorFlow was imported before: Hydra sets up logging anew, and every handler there is gets closed.

    That of absl, which TensorFlow brings, closes its stream too, if `sys.stderr` is another one by now: in a notebook,
    or in a test. It writes to the `sys.stderr` of the moment, and does not need the stream.
    """
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.setStream(sys.__stderr__)


def one_line_errors(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wraps what Hydra calls: an error ends a single run here, as Hydra would add a line; a sweep goes on."""

    @wraps(main)
    def wrapped(cfg: DictConfig) -> Any:
        try:
            return main(cfg)
        except Exception as error:
            _raise_stop(error)
            if not isinstance(error, EXPLAINED) or HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            _remove_unused(Path(HydraConfig.get().runtime.output_dir))
            _fail(error)

    return wrapped


def _raise_stop(error: BaseException) -> None:
    """Raises the SystemExit of a signal again if `error` replaced it.

    A signal handler can raise anywhere, and clean-up code that it interrupts may fail in turn: OmegaConf raises an
    AttributeError in a `finally` clause, for example.
    """
    replaced = error.__cause__ or error.__context__
    while replaced is not None:
        if isinstance(replaced, SystemExit | KeyboardInterrupt):
            raise replaced from None
        replaced = replaced.__cause__ or replaced.__context__


def _remove_unused(folder: Path) -> None:
    """Takes away the output folder of a run that never began, which holds Hydra's notes and an empty log."""
    notes = folder / ".hydra"
    log = [path for path in folder.glob("*.log") if path.stat().st_size == 0]
    if notes.is_dir() and set(folder.iterdir()) == {notes, *log}:
        for path in [*notes.glob("*.yaml"), *log]:
            path.unlink()
        for emptied in (notes, folder, folder.parent):
            if not any(emptied.iterdir()):
                emptied.rmdir()


def _fail(error: Exception, config_name: str = "config") -> NoReturn:
    if TRACEBACKS:
        raise error
    sys.exit(f"error: {explain(error, CONF, config_name)}")
