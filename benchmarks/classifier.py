"""Makes the SavedModel of a plain Keras classifier, which needs no fix: `python -m benchmarks.classifier OUT`."""

from __future__ import annotations

import sys

import keras

if __name__ == "__main__":
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    network = keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Dense(10, activation="softmax")])
    network.export(sys.argv[1], verbose=False)
