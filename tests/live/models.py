"""Models as users write them, in a file of their own: their lines are shown in reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


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
