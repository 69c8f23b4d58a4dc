"""The job of heads.py as in the guides of KerasTuner and Ray Tune: each trial trains the full model.

    pip install keras-tuner 'ray[tune]'    # not needed by this project
    python benchmarks/heads_by_tuners.py keras_tuner DATA --weights FILE --epochs 5

https://keras.io/keras_tuner/getting_started/, https://docs.ray.io/en/latest/tune/getting-started.html
"""

import argparse
from pathlib import Path
from typing import Any

import keras
from bare_keras import batches, mobilenetv2
from heads import DROPOUTS, HEADS, LEARNING_RATES


def compiled(weights: str, learning_rate: float, dropout: float) -> keras.Model:
    model = mobilenetv2(weights, num_classes=2, dropout=dropout)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def by_keras_tuner(data: Path, weights: str, epochs: int) -> float:
    """Returns the best validation accuracy."""
    from keras_tuner import GridSearch, HyperParameters

    def build(drawn: HyperParameters) -> keras.Model:
        rate, dropout = drawn.Choice("learning_rate", LEARNING_RATES), drawn.Choice("dropout", DROPOUTS)
        return compiled(weights, rate, dropout)

    tuner = GridSearch(build, objective="val_accuracy", max_trials=HEADS, directory="tuner", seed=0)
    train, validation = batches(data / "train", shuffle=True), batches(data / "valid", shuffle=False)
    tuner.search(train, validation_data=validation, epochs=epochs, verbose=2)
    (best,) = tuner.oracle.get_best_trials(1)
    return float(best.score)


def by_ray_tune(data: Path, weights: str, epochs: int) -> float:
    """Returns the best validation accuracy. Each trial is a process; as many run at once as there are cores."""
    from ray import tune

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            tune.report(dict(logs or {}))

    def trial(config: dict[str, Any]) -> None:
        train, validation = batches(data / "train", shuffle=True), batches(data / "valid", shuffle=False)
        model = compiled(weights, config["learning_rate"], config["dropout"])
        model.fit(train, validation_data=validation, epochs=epochs, verbose=2, callbacks=[Report()])

    space = {"learning_rate": tune.grid_search(list(LEARNING_RATES)), "dropout": tune.grid_search(list(DROPOUTS))}
    wanted = tune.TuneConfig(metric="val_accuracy", mode="max")
    results = tune.Tuner(trial, param_space=space, tune_config=wanted).fit()
    return float(results.get_best_result().metrics["val_accuracy"])


TUNERS = {"keras_tuner": by_keras_tuner, "ray": by_ray_tune}
"""Tuners by the name of the module that must be installed."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tuner", choices=TUNERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="null")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    best = TUNERS[arguments.tuner](arguments.data.resolve(), arguments.weights, arguments.epochs)
    print(f"best val_accuracy {best:.4f}")
