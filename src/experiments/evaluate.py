"""Evaluates a finished run: `experiments evaluate run_id=ID checkpoint=best split=test`."""

from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.cli.startup import suppress_startup_logs, without_gc
from experiments.cli.status import status_line
from experiments.config import check_values


@composed("evaluate")
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with status_line("terminal") as status:
        status.update("loading TensorFlow")
        with suppress_startup_logs(), without_gc():
            from experiments.cli.tables import write
            from experiments.runs.restored_run import evaluate

        row = evaluate(cfg, status)
    write([row], cfg.format, ("checkpoint", "split", "examples", "run_id"))


if __name__ == "__main__":
    run_command(main, "evaluate")
