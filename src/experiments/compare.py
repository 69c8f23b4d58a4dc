"""Compares runs of the tracking store: `experiments compare best=10`, `experiments compare diff=[RUN,RUN]`."""

from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.cli.startup import without_gc
from experiments.cli.status import status_line
from experiments.config import check_values


@composed("compare")
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with status_line("terminal") as status:
        status.update("reading runs")
        with without_gc("mlflow"):
            from experiments.cli.tables import write
            from experiments.comparison.side_by_side import compare, least_important

        rows = compare(cfg)
    write(rows, cfg.format, [] if cfg.diff else least_important(rows[0]), wrapped=("run", "note", "first", "second"))


if __name__ == "__main__":
    run_command(main, "compare")
