"""Shows dead runs, leftovers and the cache, and repairs them: `experiments doctor fix=true`."""

import sys

from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.config import check_values
from experiments.repair.cached_data import show_cache
from experiments.repair.checks import check_runs


@composed("doctor")
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    if not cfg.prune:
        from experiments.sweeps.study_storage import damaged_queues  # imports optuna, which takes a second

        queues = damaged_queues(cfg.folders)
        options = {name: cfg[name] for name in ("fix", "sync", "refill")}
        check_runs(cfg.folders, cfg.logging.tracking_uri, cfg.cache_dir, cfg.format, queues, **options)
    if not (cfg.sync or cfg.refill) and (cfg.prune or cfg.format == "table"):
        show_cache(cfg.cache_dir, cfg.format, prune=cfg.prune, fix=cfg.fix, older_than_days=cfg.older_than_days)


if __name__ == "__main__":
    # Users type `doctor sync`, but Hydra's grammar requires sync=true.
    sys.argv[1:] = [f"{argument}=true" if argument in ("sync", "prune") else argument for argument in sys.argv[1:]]
    run_command(main, "doctor")
