"""Predicts classes and probabilities of image files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from omegaconf import DictConfig

from experiments.cli.status import Status
from experiments.config.build import build
from experiments.data.base import PIXELS, DataSpec
from experiments.data.images.headers import EXTENSIONS, FORMATS, quiet_exif
from experiments.data.images.image_source import Decoder
from experiments.data.images.manifest import Manifest, check_whole, report_left_out
from experiments.data.images.scan import Damage, ImageFile, Record, examine
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
    paths = [command.path] if isinstance(command.path, str) else [*command.path] or [""]
    files = list(dict.fromkeys(file for path in paths for file in image_files(path, alone=len(paths) == 1)))
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


def image_files(name: str | Path, *, alone: bool = True) -> list[Path]:
    """Returns the file of this name, the image files below a folder, or those that a pattern such as *.jpg matches."""
    path = Path(name or "?")  # an empty name is not the working folder
    # Path.glob accepts no absolute pattern.
    matching = [] if path.exists() else sorted(glob(str(name), recursive=True))  # noqa: PTH207
    if matching:
        return [file for each in matching for file in image_files(each)]
    if not path.exists() and alone:
        raise DataError(
            f"path={name} does not exist: expected an image, a folder with images, a pattern, or a list of these. "
            "Set path."
        )
    if path.is_file() or not path.exists():
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
        meaning = meaning_of_outputs(self.model, self.spec.input_shape, self.spec.input_dtype)
        if meaning == ONE:
            raise ConfigError(f"{self.model.name} returns one output: expected one for each class. Set another run_id.")
        height, width, channels = self.spec.input_shape
        # As in the saved model: operations that run one by one round differently, by more than 1e-6 in a deep network.
        signature = [tf.TensorSpec((None, *self.spec.input_shape), self.spec.input_dtype)]
        graph = tf.function(lambda images: self.model(images, training=False), input_signature=signature)
        decoder, errors = Decoder((height, width), channels, self.antialias), dict[Path, str]()
        found, records = dict[Path, dict[str, Any]](), list[Record]()
        for start in range(0, len(files), BATCH_SIZE):
            images = dict(_decoded(decoder, files[start : start + BATCH_SIZE], records, errors))
            if images:
                inputs = converted(tf.stack(list(images.values())), PIXELS, self.spec)
                outputs = np.asarray(graph(inputs))
                rows = probabilities(outputs) if meaning == "logits" else outputs
                found |= {file: self._row(file, row, all_classes) for file, row in zip(images, rows, strict=True)}
        check_whole(Manifest(Path(), {"": tuple(records)}, {}), "error")
        if not found:
            file, reason = next(iter(errors.items()))
            raise DataError(f"{file} cannot be read: {reason}. Expected a complete {FORMATS} image. Replace it.")
        empty = dict.fromkeys(next(iter(found.values())))
        every = {file: found.get(file, empty | {"path": str(file)}) for file in files}
        return [row | ({"error": errors.get(file)} if errors else {}) for file, row in every.items()]

    def _row(self, file: Path, softmax: np.ndarray, all_classes: bool) -> dict[str, Any]:
        best = int(softmax.argmax())
        row = {"path": str(file), "class": self.spec.class_names[best], "probability": round(float(softmax[best]), 6)}
        if all_classes:
            named = zip(self.spec.class_names, softmax, strict=True)
            row["probabilities"] = {name: round(float(value), 6) for name, value in named}
        return row


def _decoded(
    decoder: Decoder, files: Sequence[Path], records: list[Record], errors: dict[Path, str]
) -> Iterator[tuple[Path, tf.Tensor]]:
    """Yields the files that training reads, with their images. Adds to `records`, or reasons to `errors`."""
    for file in files:
        with quiet_exif():
            found = examine(str(file.parent), ImageFile(file.name, 0))
        with suppress(tf.errors.InvalidArgumentError):
            if isinstance(found, Record):
                yield file, decoder.read(tf.constant(str(file)), tf.constant(found.header.orientation))
                records.append(found._replace(path=str(file)))
                continue
        errors[file] = found.reason if isinstance(found, Damage) else "corrupt"


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
