"""Plain Keras script with MLflow autologging, a peer in heads.py.

    python benchmarks/heads_by_hand.py DATA --weights FILE --epochs 5

Predicts the features of the frozen network once and trains the twelve heads on them.
"""

import argparse
from itertools import product
from pathlib import Path

import keras
import mlflow
import numpy as np
import tensorflow as tf
from bare_keras import batches, frozen_features
from heads import DROPOUTS, LEARNING_RATES
from numpy.typing import NDArray

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]


def main(data: Path, weights: str, epochs: int) -> None:
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.tensorflow.autolog(log_models=False)
    network = frozen_features(weights)
    train, validation = (featured(network, batches(data / name, shuffle=False)) for name in ("train", "valid"))
    for learning_rate, dropout in product(LEARNING_RATES, DROPOUTS):
        keras.utils.set_random_seed(0)
        with mlflow.start_run():
            head(learning_rate, dropout, network.output_shape[1:]).fit(
                *train, batch_size=32, validation_data=validation, epochs=epochs, verbose=2
            )


def featured(network: keras.Model, dataset: tf.data.Dataset) -> Examples:
    labels = np.concatenate([labels for _, labels in dataset.as_numpy_iterator()])
    return network.predict(dataset, verbose=0), labels


def head(learning_rate: float, dropout: float, shape: tuple[int, ...]) -> keras.Model:
    model = keras.Sequential([keras.Input(shape), keras.layers.Dropout(dropout), keras.layers.Dense(2)])
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="null")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.data, arguments.weights, arguments.epochs)
