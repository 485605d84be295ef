"""Central differences for functions of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def assert_derivative(function: Callable[[Any], Any], x: np.ndarray, seed: int = 0, step: float = 1e-6) -> None:
    """The gradient along a random direction, for a random cotangent, is the central difference to 1e-6.

    In float64, with third derivatives of size 1 / T^3 and T at least 0.1 here: 1e-12 * 1e3 from the step, 1e-16 / 1e-6
    from rounding; the bound is 1e-6 of the larger of 1 and the value.
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=x.shape)
    cotangent = rng.normal(size=function(tf.constant(x)).shape)

    def value(at: float) -> float:
        return float(np.sum(np.asarray(function(tf.constant(x + at * direction))) * cotangent))

    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(function(tensor) * cotangent)
    derivative = float(np.sum(tape.gradient(loss, tensor).numpy() * direction))
    difference = (value(step) - value(-step)) / (2 * step)
    assert derivative != 0
    assert abs(derivative - difference) <= 1e-6 * max(1.0, abs(difference))
