"""Models as users write them, in a file of their own: their lines are shown in reports."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras


def ArgmaxModel(module: Any) -> Any:
    """A subclassed model of Keras 3 or tf_keras: an argmax severs one layer, another is built and never called."""

    class Argmax(module.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.scores = module.layers.Dense(4)
            self.values = module.layers.Dense(2)
            self.unused = module.layers.Dense(2)
            self.unused.build((None, 3))

        def call(self, x: Any) -> Any:
            codes = tf.argmax(self.scores(x), axis=-1)
            return self.values(tf.one_hot(codes, 4))

    return Argmax()


def helper_with_numpy(tensor: Any) -> Any:
    """What leaves the graph a call deeper than the loss."""
    return np.sum(tensor)


def _rounded(module: Any) -> Any:
    @module.saving.register_keras_serializable("gradpass_tests", "Rounded")
    class Rounded(module.layers.Layer):  # type: ignore[misc]
        """Rounds three times its input."""

        def call(self, x: Any) -> Any:
            return tf.round(3.0 * x)

    return Rounded


LAYERS = {module.__name__: _rounded(module) for module in (keras, tf_keras)}


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """A metric taken for a loss, by sample: how often both are on the same side of a half."""
    return 1.0 - tf.reduce_mean(tf.cast((y_pred > 0.5) == (y_true > 0.5), tf.float32), axis=-1)


def wrong(y_true: Any, y_pred: Any) -> Any:
    """A loss by sample that rounds first."""
    return tf.reduce_mean(tf.abs(tf.round(4.0 * y_pred) - 4.0 * y_true), axis=-1)
