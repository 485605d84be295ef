"""Distribution functions that soften a step: a kernel's chance that noise of unit scale stays below x."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradpass.rules.lazy import tf


def logistic(x: Any) -> Any:
    """The logistic distribution function, 1 / (1 + exp(-x))."""
    return tf.sigmoid(x)


def gaussian(x: Any) -> Any:
    """The normal distribution function."""
    return 0.5 * (1 + tf.math.erf(x * (1 / math.sqrt(2))))


def cauchy(x: Any) -> Any:
    """The Cauchy distribution function, 1/2 + atan(x) / pi: heavy tails, so a far unit still learns."""
    return 0.5 + tf.atan(x) * (1 / math.pi)


def triangular(x: Any) -> Any:
    """The distribution function of the triangle on [-1, 1]: no gradient beyond it."""
    z = tf.clip_by_value(x, -1.0, 1.0)
    return 0.5 + z - 0.5 * z * tf.abs(z)


KERNELS: dict[str, Callable[[Any], Any]] = {k.__name__: k for k in (logistic, gaussian, cauchy, triangular)}
