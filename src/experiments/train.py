"""Trains one experiment: `python -m experiments.train model=mobilenetv2 data=cats_dogs`."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.cli.entry import enter, job
from experiments.cli.startup import loading, quiet_start
from experiments.cli.status import stages
from experiments.config import check, register
from experiments.config.registry import CONF

register()


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
@job
def main(cfg: DictConfig) -> float:
    check(cfg)
    with stages(cfg.progress) as show:
        show("loading TensorFlow")
        with quiet_start(), loading():
            from experiments.cli.report import report
            from experiments.runs.run import run

        show(None)
        result = run(cfg, Path(HydraConfig.get().runtime.output_dir), show)
    report(result, cfg.logging.tracking_uri)
    return result.objective


if __name__ == "__main__":
    enter(main, "config")
