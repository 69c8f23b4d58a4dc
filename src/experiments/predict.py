"""Names the class of images: `python -m experiments.predict run_id=ID path=FOLDER`."""

from pathlib import Path
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
    from experiments.runs.predictor import Classifier

register()


@hydra.main(version_base="1.3", config_path=CONF, config_name="predict")
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with status_line("terminal") as status:
        status.update("loading TensorFlow")
        with suppress_startup_logs(), without_gc():
            from experiments.cli.tables import write
            from experiments.runs.predictor import image_files

        files = image_files(Path(cfg.path))
        status.update("reading the model")
        classifier = _of_run(cfg) if cfg.model is None else _stock(cfg)
        status.update("predicting")
        rows = classifier.rows(files, all_classes=cfg.format == "json")
    write(rows, cfg.format)


def _of_run(cfg: DictConfig) -> "Classifier":
    from experiments.records.finished_run import finished_run
    from experiments.runs.predictor import Classifier
    from experiments.runs.restored_run import restored_model

    with finished_run(cfg.logging.tracking_uri, cfg.logging.experiment_name, cfg.run_id, str(cfg.checkpoint)) as past:
        model = restored_model(past, str(cfg.checkpoint))
    antialias = bool(past.cfg.data.get("antialias"))
    return Classifier(model, past.spec.input_shape, past.spec.class_names, antialias=antialias)


def _stock(cfg: DictConfig) -> "Classifier":
    """A network of keras.applications as published, with its 1000 classes."""
    from experiments.runs.predictor import Classifier, imagenet_classes

    if not cfg.model.get("include_top"):
        raise ConfigError(
            "model.include_top=false leaves a stock network without its classes: expected true. "
            "Set model.include_top=true, or leave model out to predict with a run."
        )
    shape = (*cfg.image_size, 3)
    model = build(cfg.model, input_shape=shape, num_classes=1000)
    return Classifier(model, shape, imagenet_classes(), antialias=False)


if __name__ == "__main__":
    run_command(main, "predict")
