"""MobileNetV3Small (Keras 3, untrained) with a nearest-codebook lookup behind its features, then a classifier.

Vector quantisation as everybody writes it first: the index of the nearest code by argmin, the code by gather. The codes
and the classifier train, the whole network before them gets no gradient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIZE = 96
CLASSES = 10
CODES = 64

CUTS = {"ArgMin": 1}
RATE = 0.01


def build(_: Path, out: Path) -> None:
    """Exports the model, BatchNorm in inference mode; no source, since the weights are made anew."""
    import keras
    import tensorflow as tf

    class NearestCode(keras.layers.Layer):
        """Puts the nearest code in the place of each feature vector."""

        def build(self, shape: tuple[int, ...]) -> None:
            self.codebook = self.add_weight(shape=(CODES, shape[-1]), name="codebook")

        def call(self, features: tf.Tensor) -> tf.Tensor:
            distances = tf.reduce_sum(tf.square(features[..., None, :] - self.codebook), axis=-1)
            return tf.gather(self.codebook, tf.argmin(distances, axis=-1))

    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    network = keras.applications.MobileNetV3Small(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    quantise = NearestCode(name="quantise")
    pooled = keras.layers.GlobalAveragePooling2D()(quantise(network(image)))
    model = keras.Model(image, keras.layers.Dense(CLASSES, name="head")(pooled))

    samples = lesson(np.random.default_rng(0))[0]["image"]
    settle(network, samples)
    features = network(samples, training=False).numpy().reshape(-1, network.output.shape[-1])
    quantise.codebook.assign(np.random.default_rng(0).permutation(features)[:CODES])
    model.export(str(out), verbose=False)


def settle(network: Any, samples: np.ndarray) -> None:
    """Gives each BatchNorm the statistics of one batch; with those it starts from, the features are all about 1e-10."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(samples, training=True)


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Makes a random image."""
    return {"image": picture(rng, int(rng.integers(CLASSES)))[None]}


def lesson(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Makes four pictures of each class, with their classes."""
    classes = np.repeat(np.arange(CLASSES), 4)
    return {"image": np.stack([picture(rng, int(label)) for label in classes])}, {"class": classes}


def loss(outputs: dict[str, Any], labels: dict[str, np.ndarray]) -> Any:
    """Is the cross-entropy of the classes."""
    import tensorflow as tf

    (logits,) = outputs.values()
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels["class"], logits=logits))


def picture(rng: np.random.Generator, label: int) -> np.ndarray:
    """Draws waves in a random colour; the class is the direction in which they go."""
    angle = np.pi * (label + rng.uniform(-0.3, 0.3)) / CLASSES
    across, down = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE))
    phase = 2 * np.pi * (rng.uniform(3, 12) * (np.cos(angle) * across + np.sin(angle) * down) + rng.uniform())
    waves = (0.5 + 0.5 * np.sin(phase))[..., None] * rng.uniform(0.3, 1, 3)
    noisy = np.clip(waves + 0.05 * rng.standard_normal(waves.shape), 0, 1)
    return np.asarray(255 * noisy, np.float32)
