"""Weights over the last axis: optimality, derivatives, limits, infinite entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.soft.simplex import WEIGHTS, weights
from tests.soft.derivatives import assert_derivative

X = np.random.default_rng(5).normal(size=(3, 2, 9))
POWERS = {"sparse": 1, "p3/2": 2, "p4/3": 3}
each_mode = pytest.mark.parametrize("mode", WEIGHTS)
INF, NAN = float("inf"), float("nan")


def bisected(row: np.ndarray, power: int) -> np.ndarray:
    """The weights of a row by bisection for theta: slow, and another way than the module's."""
    low, high = row.max() - 1, row.max()
    for _ in range(200):
        middle = (low + high) / 2
        total = np.sum(np.maximum(row - middle, 0) ** power)
        low, high = (middle, high) if total > 1 else (low, middle)
    return np.maximum(row - low, 0) ** power


@pytest.mark.parametrize("mode", POWERS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_weights_solve_the_equation_of_their_mode(mode: str, scale: float) -> None:
    made = weights(tf.constant(scale * X), mode).numpy()
    expected = np.apply_along_axis(bisected, -1, scale * X, POWERS[mode])
    # theta is known to 1e-16 of an entry of at most 100; to the third power that is 3e-14 of a weight.
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13)


def test_entropic_weights_are_the_softmax() -> None:
    np.testing.assert_array_equal(weights(tf.constant(X)), tf.nn.softmax(X))


@each_mode
def test_gradient_is_the_derivative(mode: str) -> None:
    assert_derivative(lambda x: weights(x / 0.5, mode), X)


@each_mode
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_weights_sum_to_one_and_tend_to_one_hot(mode: str, dtype: tf.DType) -> None:
    cold = weights(tf.constant(X, dtype) / 1e-6, mode)  # neighbours are 3e-3 apart at least: exp(-3e3) is 0
    np.testing.assert_array_equal(cold, tf.one_hot(tf.argmax(X, -1), 9, dtype=dtype))
    rounding = 9 * np.finfo(dtype.as_numpy_dtype).eps
    np.testing.assert_allclose(tf.reduce_sum(weights(tf.constant(X, dtype), mode), -1), np.ones((3, 2)), atol=rounding)


@each_mode
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([2.0], [1.0]),
        ([3.0, 3.0], [0.5, 0.5]),
        ([INF, 1.0, -INF], [1.0, 0.0, 0.0]),
        ([INF, INF, 0.0], [0.5, 0.5, 0.0]),
        ([-INF, 100.0], [0.0, 1.0]),
        ([-INF, -INF], [0.5, 0.5]),
        ([NAN, 3e38], [0.0, 1.0]),
    ],
)
def test_equal_and_infinite_entries(mode: str, row: list[float], expected: list[float]) -> None:
    x = tf.constant(row)
    with tf.GradientTape() as tape:
        tape.watch(x)
        made = weights(x, mode)
    np.testing.assert_allclose(made, expected, rtol=1e-7)
    gradient: Any = tape.gradient(made, x, output_gradients=tf.range(len(row), dtype=tf.float32))
    assert np.isfinite(gradient.numpy()).all()
