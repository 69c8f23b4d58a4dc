"""The command of the key `on_end`, which is executed with the result when a run or a sweep ends."""

import json
import logging
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError, StoppedRun
from experiments.tracking.journal import first_event
from experiments.tracking.redaction import mask, mask_command

SECONDS = 60
logger = logging.getLogger(__name__)


@contextmanager
def on_end(command: str | None, output_dir: Path) -> Iterator[dict[str, Any]]:
    """Executes `command` with the yielded dict, to which the block adds results, as JSON on its standard input.

    Its output goes to standard error. If it fails, that is logged. Raises ConfigError if there is no such program.
    """
    arguments: list[str] = []
    with suppress(ValueError):  # a quote is not closed
        arguments = shlex.split(command or "")
    if command is not None and not shutil.which("".join(arguments[:1])):
        raise ConfigError(f"on_end={mask(command)} is not a command: expected a program and arguments. Change on_end.")
    result = dict.fromkeys(("run_id", "monitored", "objective", "metrics", "page", "error"))
    result |= {"status": "FINISHED", "output_dir": output_dir.absolute()}
    try:
        yield result
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, StoppedRun)
        result |= {"status": "FAILED" if failed else "KILLED", "error": mask(f"{type(error).__name__}: {error}")}
        raise
    finally:
        if arguments:
            link = output_dir / "resumed"  # to the folder of the run that was continued
            started = first_event(link if link.exists() else output_dir) or {}
            result["run_id"] = result["run_id"] or started.get("run_id")
            _execute(arguments, result)


def _execute(arguments: list[str], result: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(result, default=str), parse_constant=lambda _: None)  # NaN is not JSON
    try:
        subprocess.run(arguments, input=f"{json.dumps(plain)}\n".encode(), stdout=2, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"{error}".rpartition("' ")[2].rstrip(".")  # after the command, which may contain secrets
        logger.warning("on_end=%s failed: %s. The result is not affected.", mask_command(arguments), reason)
