"""The networks of keras.applications, exported as Keras does it: inference only, BatchNorm with its moving averages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import tensorflow as tf

from benchmarks.zoo import Made, Make

# Image sizes: the least that the network takes, or what keeps its last layers larger than a pixel.
SIZES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "NASNetMobile": 64,
    "ResNet50": 64,
    "VGG16": 32,
    "Xception": 71,
}
CLASSES = 10


class Exported(Made):
    """A Keras model, saved as its users save it."""

    def save(self, out: Path) -> None:
        """Exports it."""
        self.root.export(str(out), verbose=False)


def application(name: str) -> Made:
    """Makes one with random weights."""
    import keras

    size = SIZES[name]
    network = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=CLASSES)
    return Exported(network, network, (tf.TensorSpec([None, size, size, 3], tf.float32, "image"),))


MODELS: dict[str, Make] = {name: partial(application, name) for name in SIZES}
