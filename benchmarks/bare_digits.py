"""Plain Keras script, the peer in sweeps.py.

    python benchmarks/bare_digits.py SEED

Trains one job of the sweep, without any tracking.
"""

import sys

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(int(sys.argv[1]))
data = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    (data.images * 15.9375).astype(np.uint8)[..., np.newaxis], data.target, test_size=0.1, random_state=0
)
model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255)])
for filters in (32, 64, 128):
    model.add(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False))
    model.add(keras.layers.BatchNormalization(momentum=0.9))
    model.add(keras.layers.ReLU())
    model.add(keras.layers.MaxPooling2D(padding="same"))
for layer in (keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.2), keras.layers.Dense(10)):
    model.add(layer)
model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=1, verbose=2)
