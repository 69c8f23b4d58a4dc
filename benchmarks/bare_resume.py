"""Plain Keras script with `fit` and BackupAndRestore, as in Keras's guide; the peer in resume.py.

    python benchmarks/bare_resume.py EPOCHS

Started again in the same folder after a kill, it resumes from its backup.
https://keras.io/api/callbacks/backup_and_restore/
"""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

STEPS = "steps"


class CountSteps(keras.callbacks.Callback):
    """Writes one byte per step to a file; resume.py reads its size to decide when to kill the process."""

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self._file = Path(STEPS).open("ab", buffering=0)  # noqa: SIM115 -- open until the process is killed

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._file.write(b".")


def main(epochs: int) -> None:
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    held = len(images) // 5
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 16)])
    for filters in (32, 64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D(2, padding="same"))
    for layer in (layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(10)):
        model.add(layer)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    callbacks = [keras.callbacks.BackupAndRestore("backup"), CountSteps()]
    split = {"x": images[held:], "y": labels[held:], "validation_data": (images[:held], labels[:held])}
    model.fit(**split, batch_size=32, epochs=epochs, callbacks=callbacks, verbose=0)
    np.savez("weights.npz", *model.get_weights())


if __name__ == "__main__":
    main(int(sys.argv[1]))
