"""Predicts the class of images: `experiments predict run_id=ID path=FOLDER`."""

from omegaconf import DictConfig

from experiments.cli.entry import composed, run_command
from experiments.cli.startup import suppress_startup_logs, without_gc
from experiments.cli.status import status_line
from experiments.config import check_values


@composed("predict")
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with status_line("terminal") as status:
        status.update("loading TensorFlow")
        with suppress_startup_logs(), without_gc():
            from experiments.cli.tables import write
            from experiments.runs.predictor import predict

        rows = predict(cfg, status)
    write(rows, cfg.format, wrapped=("error",))


if __name__ == "__main__":
    run_command(main, "predict")
