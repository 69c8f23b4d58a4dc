"""Entry point of every command: reports errors in one line with exit status 1."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from traceback import format_exception
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.cli.arguments import rewritten
from experiments.cli.help import register_help
from experiments.cli.safe_text import safe_text
from experiments.cli.signals import STOPPING
from experiments.cli.startup import closed_pipe_exits, exit_if_unread, quiet_environment
from experiments.config.explain import explained
from experiments.config.registry import CONF, register
from experiments.tracking.redaction import remember_secrets

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Choice of the user, read before `run_command` sets the variable for Hydra."""


def run_command(main: Callable[[], object], config_name: str, *, overrides: bool = True) -> None:
    """Runs a Hydra main function. HYDRA_FULL_ERROR=1 shows tracebacks instead of one line.

    With `overrides=False` the arguments of the command are not those of Hydra and stay as they are.
    """
    quiet_environment()
    # Without this, Hydra prints a report of its own and exits; with it, Hydra raises, and the similar key can be named.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _keep_streams_open()
    register_help()
    # A run that a scheduler stops ends as KILLED, because SystemExit leaves the tracker with an error.
    for number in STOPPING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with closed_pipe_exits():
        try:
            if overrides:
                sys.argv[1:] = rewritten(sys.argv[1:], config_name)
            main()
        except Exception as error:
            _raise_stop(error)
            _fail(error, config_name)
        except KeyboardInterrupt:
            if TRACEBACKS:
                raise
            sys.exit(128 + signal.SIGINT)


def _keep_streams_open() -> None:
    """Prevents Hydra from closing `sys.stderr` if TensorFlow is already imported, as in a notebook or a test.

    Hydra reconfigures logging, which closes all handlers. The handler of absl, which TensorFlow installs, also closes
    its stream if `sys.stderr` was replaced since. It writes to the current `sys.stderr` and does not need that stream.
    """
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.setStream(sys.__stderr__)


def composed(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Decorates the main function of a command, which receives the config `config_name`, composed by Hydra."""
    register()
    run_by_hydra = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)
    return lambda main: run_by_hydra(one_line_errors(main))


def one_line_errors(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wraps the function that Hydra calls: an error ends a single run here; the error of a job is left to the sweep."""

    @wraps(main)
    def wrapped(cfg: DictConfig) -> Any:
        try:
            if HydraConfig.initialized():
                os.chdir(HydraConfig.get().runtime.cwd)  # hydra.job.chdir changes no relative path of the config
            with suppress(OmegaConfBaseException):  # `main` checks the config, and reports the same error
                remember_secrets(OmegaConf.to_container(cfg, resolve=True))
            return main(cfg)
        except Exception as error:
            _raise_stop(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            _remove_unused(Path(HydraConfig.get().runtime.output_dir))
            # Hydra would print the overrides of the command, with their secrets, above the traceback.
            _fail(error)

    return wrapped


def _raise_stop(error: BaseException) -> None:
    """Exits if `error` is due to a signal, with its status, or to the end of the reader of standard output.

    A signal handler can raise anywhere, and clean-up code that it interrupts may fail in turn: OmegaConf raises an
    AttributeError in a `finally` clause, for example.
    """
    if isinstance(error, BrokenPipeError):
        exit_if_unread()
    replaced = error.__cause__ or error.__context__
    while replaced is not None:
        if isinstance(replaced, SystemExit):
            raise replaced from None
        if isinstance(replaced, KeyboardInterrupt):
            raise SystemExit(128 + signal.SIGINT) from None
        replaced = replaced.__cause__ or replaced.__context__


def _remove_unused(folder: Path) -> None:
    """Removes the output folder of a run that did not start: it contains at most an empty log."""
    log = [path for path in folder.glob("*.log") if path.stat().st_size == 0]
    if folder.is_dir() and set(folder.iterdir()) == {*log} and folder != Path.cwd():
        for path in log:
            path.unlink()
        for emptied in (folder, folder.parent):
            if not any(emptied.iterdir()):
                emptied.rmdir()


def _fail(error: Exception, config_name: str = "config") -> NoReturn:
    """Exits with a line for an error that can be explained, and with a traceback for others. Secrets are masked."""
    message = None if TRACEBACKS else explained(error, config_name)
    if message is None:
        sys.exit(safe_text("".join(format_exception(error)).rstrip(), keep="\n\t"))
    sys.exit(safe_text(f"error: {message}"))
