"""Reports the content and the problems of a data set: `experiments inspect data=image_folder data.path=FOLDER`."""

from pathlib import Path

from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.cli.startup import suppress_startup_logs
from experiments.cli.status import status_line
from experiments.config import check_values
from experiments.config.build import build

# Report problems that training refuses, read every file, and cache no pixels.
_READ_ONLY = {"on_corrupt": "skip", "allow_leakage": True, "cache": "none", "rescan": True}


@composed("inspect")
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with suppress_startup_logs():
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
        from experiments.data.inspection.findings import inspect_splits
        from experiments.data.inspection.page import write_page
        from experiments.data.inspection.terminal import print_report

    changes = {key: value for key, value in _READ_ONLY.items() if key in cfg.data}
    with status_line("none"):
        inspection = inspect_splits(build(cfg.data, seed=0, augment=[], **changes), decode=cfg.decode)
    page = None if cfg.output is None else Path(cfg.output)
    if page is not None:
        write_page(page, inspection, cfg.samples)
    print_report(inspection, page)


if __name__ == "__main__":
    run_command(main, "inspect")
