"""Weights over the last axis that sum to 1: soft choices of the largest entry, by mode.

All of them solve max_y <x, y> - R(y) over the simplex, and differ in the regulariser R. With q = 1, 2, 3 for sparse,
p3/2 and p4/3 the solution is y = max(x - theta, 0) ** q with theta such that y sums to 1; so weights are 0 beyond a
distance of 1 below the maximum, and have q - 1 continuous derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradpass.rules.lazy import tf


def entropic(x: Any) -> Any:
    """The softmax (R the negative entropy): every weight is positive."""
    return tf.nn.softmax(x, axis=-1)


def sparse(x: Any) -> Any:
    """The Euclidean projection (R(y) = |y|^2 / 2): Martins, Astudillo, "From Softmax to Sparsemax", 2016, algorithm 1.

    On the support S of k entries theta = (sum_S x - 1) / k.
    """
    u, ordered, count = _moments_of(x)
    total = tf.cumsum(ordered, axis=-1)
    level = _last_level(ordered, (total - 1) / count)
    inside = tf.cast(u > level, u.dtype)
    level = (tf.reduce_sum(inside * u, -1, keepdims=True) - 1) / tf.reduce_sum(inside, -1, keepdims=True)
    return inside * (u - level)


def power_three_halves(x: Any) -> Any:
    """R is the p-norm's power with p = 3/2, so q = 2: theta solves a quadratic equation.

    The regulariser is that of Sander, Puigcerver, Djolonga, Peyre, Blondel, "Fast, Differentiable and Sparse Top-k",
    2023. With S and M the sums of the k largest entries and of their squares, k theta^2 - 2 S theta + M = 1.
    """
    u, ordered, count = _moments_of(x)
    total, squares = tf.cumsum(ordered, axis=-1), tf.cumsum(ordered**2, axis=-1)
    root = tf.sqrt(tf.maximum(total**2 - count * (squares - 1), 0))
    return _power(u, _last_level(ordered, (total - root) / count), 2)


def power_four_thirds(x: Any) -> Any:
    """R is the p-norm's power with p = 4/3, so q = 3: theta solves a cubic equation, by Cardano's hyperbolic form.

    With mean c, and m2, m3 the sums of the k largest entries' centred squares and cubes, w = theta - c solves
    w^3 + 3 m2 / k w + (1 - m3) / k = 0, which has one real root since m2 >= 0. Source as for p = 3/2.
    """
    u, ordered, count = _moments_of(x)
    total, squares, cubes = (tf.cumsum(ordered**i, axis=-1) for i in (1, 2, 3))
    mean = total / count
    second = tf.maximum(squares - mean * total, 0)
    third = cubes - 3 * mean * squares + 2 * mean**2 * total
    third_of_linear, constant = second / count, (1 - third) / count
    side, size = tf.sign(constant), tf.abs(constant)
    scale = tf.sqrt(third_of_linear)
    # Where the linear term is next to nothing the hyperbolic form is 0 / 0, and the root a cube root.
    tiny = third_of_linear <= tf.maximum(size, 1) * _epsilon(u)
    ratio = size / tf.where(tiny, tf.ones_like(scale), 2 * third_of_linear * scale)
    root = tf.where(tiny, size ** (1 / 3), 2 * scale * tf.sinh(tf.asinh(ratio) / 3))
    return _power(u, _last_level(ordered, mean - side * root), 3)


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "entropic": entropic,
    "sparse": sparse,
    "p3/2": power_three_halves,
    "p4/3": power_four_thirds,
}


def weights(x: Any, mode: str = "entropic") -> Any:
    """Weights [..., n] of the entries [..., n], already divided by a temperature; O(n log n), softmax O(n).

    Infinite maxima share the weight; a NaN, which no maximum takes, has none. With finite entries WEIGHTS can be used
    as they are.
    """
    limit = tf.constant(x.dtype.max / 4, x.dtype)
    return WEIGHTS[mode](tf.where(x > -limit, tf.minimum(x, limit), -limit))


def _moments_of(x: Any) -> tuple[Any, Any, Any]:
    """The entries below their maximum, the same sorted from the largest without gradient, and 1 .. n.

    Entries are cut off at -1, where every weight is 0 already: so the sums of powers are at most n and do not cancel.
    """
    u = tf.maximum(x - tf.stop_gradient(tf.reduce_max(x, axis=-1, keepdims=True)), tf.constant(-1, x.dtype))
    ordered = tf.sort(tf.stop_gradient(u), axis=-1, direction="DESCENDING")
    return u, ordered, tf.cast(tf.range(1, tf.shape(x)[-1] + 1), x.dtype)


def _last_level(ordered: Any, levels: Any) -> Any:
    """Of the thetas that belong to the k largest entries, k = 1 .. n, the one whose k entries lie above it."""
    count = tf.reduce_sum(tf.cast(ordered > levels, tf.int32), axis=-1, keepdims=True)
    last = len(levels.shape) - 1  # by number: tf2onnx makes an invalid graph of axis=-1 with batch_dims
    return tf.stop_gradient(tf.gather(levels, tf.maximum(count - 1, 0), batch_dims=last, axis=last))


def _power(u: Any, level: Any, power: int) -> Any:
    """max(u - theta, 0) ** power, with a Newton step for theta that gives it its derivative and takes off rounding."""
    above = tf.nn.relu(u - level)
    slope = tf.stop_gradient(power * tf.reduce_sum(above ** (power - 1), -1, keepdims=True))
    level = level + (tf.reduce_sum(above**power, -1, keepdims=True) - 1) / slope
    made = tf.nn.relu(u - level) ** power
    return made / tf.reduce_sum(made, -1, keepdims=True)


def _epsilon(x: Any) -> Any:
    return tf.constant(2.0**-52 if x.dtype == tf.float64 else 2.0**-23, x.dtype)
