"""Predicts classes and probabilities of image files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import DictConfig

from experiments.cli.status import Status
from experiments.config.build import build
from experiments.data.base import PIXELS, DataSpec
from experiments.data.images.headers import EXTENSIONS, FORMATS, orientation_of
from experiments.data.images.image_source import Decoder
from experiments.data.images.manifest import report_left_out
from experiments.data.images.walk import walk
from experiments.data.preparation import converted
from experiments.errors import ConfigError, DataError
from experiments.models.outputs import ONE, meaning_of_outputs
from experiments.runs.figures import probabilities
from experiments.runs.restored_run import restored_run

BATCH_SIZE = 32
CLASS_INDEX = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"


def predict(command: DictConfig, status: Status) -> list[dict[str, Any]]:
    """Returns the rows that `predict` prints, one for each image at or below `command.path`."""
    files = image_files(Path(command.path))
    status.update("reading the model")
    predictor = _run_predictor(command) if command.model is None else _stock_predictor(command)
    status.update("predicting")
    return predictor.rows(files, all_classes=command.format == "json")


def _run_predictor(command: DictConfig) -> "Predictor":
    run = restored_run(command)
    run.spec.white("predict", channels=(1, 3))
    return Predictor(run.model, run.spec, bool(run.cfg.data.get("antialias")))


def _stock_predictor(command: DictConfig) -> "Predictor":
    """Returns a predictor with a published network of keras.applications and its 1000 ImageNet classes."""
    if not command.model.get("include_top"):
        raise ConfigError(
            "model.include_top=false leaves a published network without its classes: expected true. "
            "Set model.include_top=true, or leave model out to predict with a run."
        )
    spec = DataSpec((*command.image_size, 3), "uint8", 1000, tuple(imagenet_classes()), 0, "", (), "ImageNet")
    model = build(command.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
    return Predictor(model, spec, antialias=False)


def image_files(path: Path) -> list[Path]:
    """Returns `path` if it is a file, else all image files below it, sorted by path."""
    if not path.exists():
        raise DataError(
            f"path={path} does not exist: expected an image or a folder with images. Set path=FILE_OR_FOLDER."
        )
    if path.is_file():
        return [path]
    found = walk(path)
    report_left_out(path, found.left_out)
    files = [path / file for file in found.files]
    if not files:
        raise DataError(f"path={path} contains no image: expected files ending in {', '.join(EXTENSIONS)}. Set path.")
    return files


@dataclass(frozen=True)
class Predictor:
    """A model with the spec of the images that it was trained on."""

    model: keras.Model
    spec: DataSpec
    antialias: bool

    def rows(self, files: Sequence[Path], *, all_classes: bool) -> list[dict[str, Any]]:
        """Returns one row per file: path, class and its probability. `all_classes` adds those of all classes."""
        meaning, found = meaning_of_outputs(self.model, self.spec.input_shape, self.spec.input_dtype), []
        if meaning == ONE:
            raise ConfigError(f"{self.model.name} returns one output: expected one for each class. Set another run_id.")
        for start in range(0, len(files), BATCH_SIZE):
            batch = files[start : start + BATCH_SIZE]
            outputs = np.asarray(self.model(self._images(batch), training=False))
            rows = probabilities(outputs) if meaning == "logits" else outputs
            found += [self._row(file, row, all_classes) for file, row in zip(batch, rows, strict=True)]
        return found

    def _images(self, files: Sequence[Path]) -> tf.Tensor:
        height, width, channels = self.spec.input_shape
        decoder = Decoder((height, width), channels, self.antialias)
        return converted(tf.stack([_decoded(decoder, file) for file in files]), PIXELS, self.spec)

    def _row(self, file: Path, softmax: np.ndarray, all_classes: bool) -> dict[str, Any]:
        best = int(softmax.argmax())
        row = {"path": str(file), "class": self.spec.class_names[best], "probability": round(float(softmax[best]), 6)}
        if all_classes:
            row["probabilities"] = {
                name: round(float(value), 6) for name, value in zip(self.spec.class_names, softmax, strict=True)
            }
        return row


def _decoded(decoder: Decoder, file: Path) -> tf.Tensor:
    try:
        content = file.read_bytes()
        return decoder(tf.constant(content), tf.constant(orientation_of(content)))
    except tf.errors.InvalidArgumentError as error:
        raise DataError(
            f"{file} cannot be decoded: expected a complete {FORMATS} image. Replace or remove it."
        ) from error


def imagenet_classes() -> list[str]:
    """Returns the names of ImageNet's 1000 classes, or numbered names if the list is neither cached nor reachable."""
    try:
        index = keras.utils.get_file("imagenet_class_index.json", CLASS_INDEX, cache_subdir="models")
    except Exception as error:  # Keras raises no narrower type for a failed download
        if "URL fetch failure" not in str(error):
            raise
        return [f"class {number}" for number in range(1000)]
    names = json.loads(Path(index).read_text(encoding="utf-8"))
    return [names[str(number)][1] for number in range(1000)]
