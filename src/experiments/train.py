"""Trains one experiment: `experiments train model=mobilenetv2 data=cats_dogs`."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.cli.on_end import on_end
from experiments.cli.startup import suppress_startup_logs, without_gc
from experiments.cli.status import status_line
from experiments.config import check


@composed("config")
def main(cfg: DictConfig) -> float:
    check(cfg)
    output_dir = Path(HydraConfig.get().runtime.output_dir)
    with on_end(cfg.on_end, output_dir) as end, status_line(cfg.progress) as status:
        status.update("loading TensorFlow")
        with suppress_startup_logs(), without_gc():
            from experiments.cli.report import report
            from experiments.runs.run import run

        status.stop()
        result = run(cfg, output_dir, status)
        end |= result._asdict()
    report(result, cfg.logging.tracking_uri)
    return result.objective


if __name__ == "__main__":
    run_command(main, "config")
