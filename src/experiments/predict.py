"""Names the class of images: `python -m experiments.predict run_id=ID path=FOLDER`."""

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from experiments.build import build
from experiments.config import check_values, register
from experiments.doors import CONF, enter, job
from experiments.errors import ConfigError
from experiments.loading import loading
from experiments.quiet import quiet_start
from experiments.stages import stages

if TYPE_CHECKING:
    from experiments.prediction import Classifier

register()


@hydra.main(version_base="1.3", config_path=CONF, config_name="predict")
@job
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    with stages("terminal") as show:
        show("loading TensorFlow")
        with quiet_start(), loading():
            from experiments.prediction import image_files
            from experiments.tables import write

        files = image_files(Path(cfg.path))
        show("reading the model")
        classifier = _of_run(cfg) if cfg.model is None else _stock(cfg)
        show("predicting")
        rows = classifier.rows(files, all_classes=cfg.format == "json")
    write(rows, cfg.format)


def _of_run(cfg: DictConfig) -> "Classifier":
    from experiments.past_run import past_run, restored_model
    from experiments.prediction import Classifier

    with past_run(cfg.logging.tracking_uri, cfg.logging.experiment_name, cfg.run_id, str(cfg.checkpoint)) as past:
        model = restored_model(past, str(cfg.checkpoint))
    antialias = bool(past.cfg.data.get("antialias"))
    return Classifier(model, past.spec.input_shape, past.spec.class_names, antialias=antialias)


def _stock(cfg: DictConfig) -> "Classifier":
    """A network of keras.applications as published, with its 1000 classes."""
    from experiments.prediction import Classifier, imagenet_classes

    if not cfg.model.get("include_top"):
        raise ConfigError(
            "model.include_top=false leaves a stock network without its classes: expected true. "
            "Set model.include_top=true, or leave model out to predict with a run."
        )
    shape = (*cfg.image_size, 3)
    model = build(cfg.model, input_shape=shape, num_classes=1000)
    return Classifier(model, shape, imagenet_classes(), antialias=False)


if __name__ == "__main__":
    enter(main, "predict")
