"""Bytes of the saved model of each built-in model, compared with those of its weights.

    python benchmarks/saved_model_size.py

The models have random weights, so nothing is downloaded. `cnn` and `mlp` are those of MNIST, the networks of
keras.applications have a head for two classes. Each saved model is removed before the next one is written.
"""

import tempfile
from pathlib import Path

import keras
from hydra import compose, initialize_config_dir
from measurement import show_ratio

from experiments.config import register
from experiments.config.build import build
from experiments.config.registry import CONF
from experiments.data.base import DataSpec
from experiments.runs.saved_model import save_model

PHOTOS, DIGITS = ((160, 160, 3), 2), ((28, 28, 1), 10)
"""Input shape and number of classes."""
MODELS = {
    "mlp": DIGITS,
    "cnn": DIGITS,
    "mobilenetv2": PHOTOS,
    "efficientnetv2b0": PHOTOS,
    "resnet50": PHOTOS,
    "vgg16": PHOTOS,
    "application model.architecture=DenseNet121": PHOTOS,
}
BOUND = 1.25
"""The graph adds a part that does not depend on the number of weights; the smallest of these models have 0.4 MB."""


def main() -> None:
    register()
    with initialize_config_dir(CONF, version_base="1.3"):
        for option, (shape, classes) in MODELS.items():
            cfg = compose("config", [*f"model={option}".split(), "model.weights=null"])
            keras.backend.clear_session()
            model = build(cfg.model, input_shape=shape, num_classes=classes)
            names = tuple(map(str, range(classes)))
            weights, graph, saved = sizes(model, DataSpec(shape, "uint8", classes, names, 1, "0", (1,), "none"))
            print(f"  {option}: weights {weights:.2f} MB, graph {graph:.2f} MB, saved model {saved:.2f} MB")
            show_ratio(f"saved model / weights of {option}", saved / weights, BOUND)


def sizes(model: keras.Model, spec: DataSpec) -> tuple[float, float, float]:
    """Returns the megabytes of the model's arrays, and of the graph and all files of its saved model."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, spec, Path(folder, "model"))
        files = {path.name: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}
    arrays = sum(variable.numpy().nbytes for variable in model.variables)  # saving has built those of cnn and mlp
    return arrays / 1e6, files["saved_model.pb"] / 1e6, sum(files.values()) / 1e6


if __name__ == "__main__":
    main()
