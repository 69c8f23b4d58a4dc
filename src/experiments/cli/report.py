"""Last lines of a run: results, and commands for the next steps."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli.safe_text import safe_text
from experiments.errors import pluralized
from experiments.tracking.journal import journal_file, undelivered
from experiments.tracking.uris import sync_command, where_to_look

if TYPE_CHECKING:
    from experiments.runs.results import Result


def report(result: "Result", tracking_uri: str | None) -> None:
    lines = {
        "run id": result.run_id or ("none (logging=none)" if tracking_uri is None else "none"),
        "objective": f"{result.objective:.4f} ({result.monitored}, the best of all epochs)",
        **{name: f"{value:.4f}" for name, value in result.metrics.items()},
        **({"model": result.model_uri} if result.model_uri else {}),
        "checkpoints": str(_near(result.output_dir / "checkpoints")),
        **next_commands(result, tracking_uri),
    }
    folder = result.output_dir
    if tracking_uri is not None and journal_file(folder).is_file() and (left := undelivered(folder)):
        lines["not sent"] = f"{pluralized(left, 'event')}. To send them:\n{sync_command(folder, tracking_uri)}"
    width = max(map(len, lines))
    below = "\n" + " " * (width + 2)
    print()
    for name, value in lines.items():
        print(f"{name:<{width}}  {below.join(map(safe_text, value.splitlines()))}", flush=True)


def next_commands(result: "Result", tracking_uri: str | None) -> dict[str, str]:
    """Returns commands for the next steps, starting with the activation of the environment."""
    in_environment = sys.prefix != sys.base_prefix
    activate = _near(Path(sys.prefix) / "bin" / "activate")
    commands = {"activate": f"source {shlex.quote(str(activate))}"} if in_environment else {}
    if tracking_uri is not None and result.page is not None:
        commands["MLflow"] = where_to_look(tracking_uri, result.page)
    commands["TensorBoard"] = f"tensorboard --logdir {shlex.quote(str(_near(result.output_dir / 'tensorboard')))}"
    if result.run_id is not None:
        commands["evaluate"] = f"experiments evaluate run_id={result.run_id}"
    return commands


def _near(path: Path) -> Path:
    """Returns the path relative to the working folder if it is inside it, for shorter lines."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
