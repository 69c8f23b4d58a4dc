"""Plain Keras script with MLflow autologging, the peer in first_step.py, total_time.py and heads.py.

    python benchmarks/bare_keras.py DATA --weights FILE --epochs 3

Trains a head on a frozen MobileNetV2. DATA contains train/ and valid/ with one folder per class.
"""

import argparse
from pathlib import Path

import keras
import mlflow
import tensorflow as tf

IMAGE_SIZE = (160, 160)


def main(data: Path, weights: str, epochs: int, callbacks: list[keras.callbacks.Callback]) -> None:
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.tensorflow.autolog(log_models=False)
    keras.utils.set_random_seed(0)
    train = batches(data / "train", shuffle=True)
    validation = batches(data / "valid", shuffle=False)
    model = mobilenetv2(weights, num_classes=2)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(train, validation_data=validation, epochs=epochs, callbacks=callbacks, verbose=2)


def batches(folder: Path, *, shuffle: bool) -> tf.data.Dataset:
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=IMAGE_SIZE, batch_size=32, shuffle=shuffle, seed=0
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def frozen_features(weights: str) -> keras.Model:
    network = keras.applications.MobileNetV2((*IMAGE_SIZE, 3), alpha=0.35, include_top=False, weights=None)
    if weights != "null":
        network.load_weights(weights)
    network.trainable = False
    images = keras.Input((*IMAGE_SIZE, 3))
    features = network(keras.applications.mobilenet_v2.preprocess_input(images), training=False)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(features))


def mobilenetv2(weights: str, num_classes: int, dropout: float = 0.2) -> keras.Model:
    features = frozen_features(weights)
    return keras.Model(features.input, keras.layers.Dense(num_classes)(keras.layers.Dropout(dropout)(features.output)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="null")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--stop-after-first-step", metavar="FILE")
    arguments = parser.parse_args()
    stops = []
    if arguments.stop_after_first_step is not None:
        from first_step_end import FirstStepEnd

        stops.append(FirstStepEnd(arguments.stop_after_first_step))
    main(arguments.data, arguments.weights, arguments.epochs, stops)
