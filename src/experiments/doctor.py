"""Shows dead runs, leftovers and the cache, and repairs them: `experiments doctor fix=true`."""

import sys

import hydra
from omegaconf import DictConfig

from experiments.cli.entry import one_line_errors, run_command
from experiments.config import check_values, register
from experiments.config.registry import CONF
from experiments.repair.cached_data import show_cache
from experiments.repair.checks import check_runs

register()


@hydra.main(version_base="1.3", config_path=CONF, config_name="doctor")
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    if not cfg.prune:
        from experiments.sweeps.queue import damaged_queues  # imports optuna, which takes a second

        queues = damaged_queues(cfg.folders)
        check_runs(cfg.folders, cfg.logging.tracking_uri, cfg.cache_dir, cfg.format, queues, fix=cfg.fix, sync=cfg.sync)
    if not cfg.sync and (cfg.prune or cfg.format == "table"):
        show_cache(cfg.cache_dir, cfg.format, prune=cfg.prune, fix=cfg.fix, older_than_days=cfg.older_than_days)


if __name__ == "__main__":
    # Users type `doctor sync`, but Hydra's grammar requires sync=true.
    sys.argv[1:] = [f"{argument}=true" if argument in ("sync", "prune") else argument for argument in sys.argv[1:]]
    run_command(main, "doctor")
