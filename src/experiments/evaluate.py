"""Evaluates a finished run: `python -m experiments.evaluate run_id=ID checkpoint=best split=test`."""

from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from experiments.cli.entry import one_line_errors, run_command
from experiments.cli.startup import suppress_startup_logs, without_gc
from experiments.cli.status import status_line
from experiments.config import check_values, register
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.errors import ConfigError

if TYPE_CHECKING:
    from experiments.data import Split, Splits
    from experiments.records.finished_run import FinishedRun

DIGITS = 6
"""A float32 has hardly more."""
register()


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with status_line("terminal") as status:
        status.update("loading TensorFlow")
        with suppress_startup_logs(), without_gc():
            from experiments.cli.tables import write
            from experiments.loops.evaluation import Evaluation
            from experiments.records.finished_run import finished_run
            from experiments.runs.restored_run import restored_model

        status.update("reading the run")
        with finished_run(
            cfg.logging.tracking_uri, cfg.logging.experiment_name, cfg.run_id, str(cfg.checkpoint)
        ) as past:
            model = restored_model(past, str(cfg.checkpoint))
        status.stop()
        split = _split(cfg, past)
        status.update("evaluating")
        metrics, _ = Evaluation(model)(split)
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in metrics.items()}
    write([{"run_id": past.run_id, "checkpoint": cfg.checkpoint, "split": cfg.split, **rounded}], cfg.format)


def _split(cfg: DictConfig, past: "FinishedRun") -> "Split":
    """The asked split of the run's own data, or of the data that the command line names."""
    data = past.cfg.data if cfg.data is None else cfg.data
    if "image_size" in data:
        data.image_size = list(past.spec.input_shape[:2])
    # Metrics of the training split are of each example once, all alike; and reading needs no room on the disk.
    plain = {"sampling": "shuffled", "class_weight": None, "cache_required": False}
    data.update({key: value for key, value in plain.items() if key in data})
    splits: Splits = build(data, seed=past.cfg.seed, augment=[])
    split: Split | None = getattr(splits, cfg.split)
    if split is None:
        raise ConfigError(f"split={cfg.split} does not exist in this data. Set split=validation or split=train.")
    if split.spec.class_names != past.spec.class_names:
        raise ConfigError(
            f"data has the classes {', '.join(split.spec.class_names)}, but run {past.run_id} was trained on "
            f"{', '.join(past.spec.class_names)}. Expected the same ones. Set data to such a set, or another run_id."
        )
    return split


if __name__ == "__main__":
    run_command(main, "evaluate")
