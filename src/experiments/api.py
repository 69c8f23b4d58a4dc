"""Functions for notebooks: `from experiments.api import train, sweep, runs, load, data`.

They take the overrides of the command line as text, `train("model=cnn", "epochs=2")`, and raise ExperimentError with
the message that a command prints. Only `sweep` starts a process.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.cli.arguments import rewritten
from experiments.cli.on_end import on_end
from experiments.cli.safe_text import SafeFormatter, TerminalHandler
from experiments.cli.startup import quiet_environment, suppress_startup_logs
from experiments.cli.status import status_line
from experiments.config import check, check_values, register
from experiments.config.explain import explained
from experiments.config.registry import CONF
from experiments.errors import ConfigError, ExperimentError
from experiments.tracking.redaction import remember_secrets
from experiments.tracking.uris import SQLITE, database_path

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from experiments.data import Splits
    from experiments.runs.restored_run import RestoredRun
    from experiments.runs.results import Result

__all__ = ["LoadedRun", "data", "load", "runs", "sweep", "train"]


def train(*overrides: str) -> "Result":
    """Trains one run in this process, like `experiments train OVERRIDES`, and returns its results.

    Shows a progress bar in a notebook, and installs no signal handlers: an interrupt ends the run as KILLED, and
    `train(..., "resume=last")` continues it. Seeds, precision and determinism of the process stay as the run set them;
    `runtime.threads` and `runtime.device` cannot change after the first use of TensorFlow.
    """
    with _composed("config", *overrides) as cfg:
        check(cfg)
        with _log_file() as output_dir, on_end(cfg.on_end, output_dir) as end, status_line(cfg.progress) as status:
            status.update("loading TensorFlow")
            with suppress_startup_logs():
                from experiments.runs.run import run
            status.stop()
            result = run(cfg, output_dir, status, handle_signals=False)
            end |= result._asdict()
            return result


def sweep(*overrides: str) -> "pd.DataFrame":
    """Runs `experiments train -m OVERRIDES` in a process of its own and returns a row for each job.

    Prints what the command prints. Raises ExperimentError with its last line if it fails.
    """
    import pandas as pd

    rewritten(["-m", *overrides], "config")
    command = [sys.executable, "-m", "experiments.train", "-m", *overrides]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line.rstrip())
        except BaseException:
            process.terminate()  # the sweep ends its jobs, and sweep.resume=last continues it
            raise
    summaries = [line.removeprefix("summary").strip() for line in lines if line.startswith("summary  ")]
    if process.returncode:
        raise ExperimentError(next((line for line in reversed(lines) if line), "").removeprefix("error: "))
    # A preview runs no job.
    return pd.read_csv(Path(summaries[-1], "jobs.csv"), index_col="job") if summaries else pd.DataFrame()


def runs(*overrides: str) -> "pd.DataFrame":
    """Returns the table of `experiments compare OVERRIDES`, such as `runs("best=10")` or `runs("sweep=last")`."""
    import pandas as pd

    with _composed("compare", "format=json", *overrides) as cfg:
        check_values(cfg)
        from experiments.comparison.side_by_side import compare

        table = pd.DataFrame(compare(cfg))
    for name in table.columns.difference(["run", "run_id", "status", "note", "first", "second"]):
        with suppress(ValueError, TypeError):  # The store has all params as text.
            table[name] = pd.to_numeric(table[name])
    return table


class LoadedRun:
    """Model, data, config and history of a run.

    `model` has the weights of the best checkpoint and is compiled with loss and metrics; its outputs are those it was
    trained with, logits in the built-in models. `config` is the recorded config, with secrets masked.
    """

    def __init__(self, restored: "RestoredRun", command: DictConfig) -> None:
        self.run_id: str = restored.run_id
        self.model: keras.Model = restored.model
        self.config: DictConfig = restored.cfg
        self._restored, self._command = restored, command

    def __repr__(self) -> str:
        return f"LoadedRun({self.run_id})"

    @cached_property
    def data(self) -> "Splits":
        """The splits of the run, without augmentation. Raises DataError if they are no longer those of the run."""
        from experiments.runs.restored_run import evaluation_splits

        return evaluation_splits(self._command, self._restored)

    @cached_property
    def history(self) -> "pd.DataFrame":
        """Metrics by epoch, from 1."""
        import pandas as pd

        from experiments.tracking.mlflow_store import existing_store

        client, points = existing_store(self._command.logging.tracking_uri), {}
        validated = [name for name in client.get_run(self.run_id).data.metrics if name.startswith("val_")]
        for name in (each for pair in validated for each in (pair.removeprefix("val_"), pair)):
            points[name] = {point.step: point.value for point in client.get_metric_history(self.run_id, name)}
        return pd.DataFrame(points).rename_axis("epoch").sort_index()


def load(run_id: str | None = None, *overrides: str) -> LoadedRun:
    """Loads a run of the tracking store: its id, "best", "last", or None for the newest finished run.

    `overrides` are those of `experiments evaluate`, such as `checkpoint=latest` or `logging.tracking_uri=URI`.
    """
    with _composed("evaluate", *overrides, *([] if run_id is None else [f"run_id={run_id}"])) as cfg:
        check_values(cfg)
        with suppress_startup_logs():
            from experiments.runs.restored_run import restored_run
        if str(cfg.logging.tracking_uri).startswith(SQLITE):  # for history and data after a change of the folder
            cfg.logging.tracking_uri = f"{SQLITE}{database_path(cfg.logging.tracking_uri)}"
        return LoadedRun(restored_run(cfg), cfg)


def data(name: str, *overrides: str) -> "Splits":
    """Builds a data set, such as `data("cats_dogs", "data.path=FOLDER")`. `augment` and `seed` can be set too."""
    with _composed("config", f"data={name}", *overrides) as cfg:
        check(cfg)
        with suppress_startup_logs():
            from experiments.config.build import build, build_each
        splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
        return splits


@contextmanager
def _composed(config_name: str, *overrides: str) -> Iterator[DictConfig]:
    """Yields the config of a command, and raises errors of the block with the message that the command prints."""
    register()
    quiet_environment()
    before, users = HydraConfig.instance().cfg, GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # a notebook may use Hydra itself
    try:
        for option in (each for each in overrides if each.startswith("-")):
            raise ConfigError(
                f"{option!r} is an option of the commands: expected KEY=VALUE. For -m, call sweep(...); for "
                "--config-dir FOLDER, write 'hydra.searchpath=[FOLDER]'."
            )
        typed = rewritten(overrides, config_name)
        with initialize_config_dir(CONF, "train" if config_name == "config" else config_name, version_base="1.3"):
            cfg = compose(config_name, typed, return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)  # the output folder may refer to the choices
            with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
                cfg.hydra.runtime.output_dir = str(Path(cfg.hydra.run.dir).absolute())
            HydraConfig.instance().set_config(cfg)
            with read_write(cfg), open_dict(cfg):
                del cfg["hydra"]
            remember_secrets(OmegaConf.to_container(cfg, resolve=True))
            yield cfg
    except Exception as error:
        message = explained(error, config_name)
        if message is None or isinstance(error, ExperimentError):
            raise
        raise ConfigError(message) from None
    finally:
        HydraConfig.instance().cfg, GlobalHydra.instance().hydra = before, users


@contextmanager
def _log_file() -> Iterator[Path]:
    """Yields the output folder of the run, and writes the log of the block to `train.log` in it."""
    output_dir = Path(HydraConfig.get().runtime.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("experiments")
    before = logger.handlers, logger.propagate, logger.level
    file, terminal = logging.FileHandler(output_dir / "train.log", encoding="utf-8"), TerminalHandler()
    file.setFormatter(SafeFormatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    terminal.setLevel(logging.WARNING)
    logger.handlers, logger.propagate = [file, terminal], False  # the root logger of the process may show everything
    logger.setLevel(logging.INFO)
    try:
        yield output_dir
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])  # also resets what loggers remember of their level
        file.close()
