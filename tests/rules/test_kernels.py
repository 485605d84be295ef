"""Kernels: distribution functions each, snnTorch's derivatives where they bear its names, refusals with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from gradpass.rules.kernels import KERNELS, REFUSED, named
from tests.models import gradients, save_expressions, with_pb

X = np.linspace(-6, 6, 2401)

# The derivatives of snnTorch 0.9.4's surrogate.py, as functions of the input and with what ours is multiplied there.
SNNTORCH: dict[str, tuple[float, float, Callable[[Any], Any]]] = {
    "sigmoid": (1 / 25, 1, lambda u: 25 * np.exp(-25 * u) / (np.exp(-25 * u) + 1) ** 2),
    "fast_sigmoid": (1 / 25, 2 / 25, lambda u: 1 / (25 * np.abs(u) + 1) ** 2),
    "atan": (1, 1, lambda u: 2 / 2 / (1 + (np.pi / 2 * 2 * u) ** 2)),
    "spike_rate_escape": (1, 50, lambda u: 25 * np.exp(-np.abs(u))),  # around the threshold, as the docstring says
}


def derivative(kernel: Any, x: Any) -> Any:
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = kernel(x)
    return tape.gradient(y, x).numpy()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinity_is_no_nan(name: str, dtype: Any) -> None:
    x = np.array([-np.inf, -np.finfo(dtype).max, np.finfo(dtype).max, np.inf], dtype)
    np.testing.assert_allclose(KERNELS[name](tf.constant(x)).numpy(), [0, 0, 1, 1], rtol=0, atol=1e-7)
    assert np.isfinite(derivative(KERNELS[name], x)).all()


@pytest.mark.parametrize("name", KERNELS)
def test_is_a_symmetric_distribution_function(name: str) -> None:
    kernel = KERNELS[name]
    value = kernel(tf.constant(X)).numpy()
    assert (np.diff(value) >= 0).all() and value.min() >= 0 and value.max() <= 1
    np.testing.assert_allclose(value + value[::-1], 1, rtol=0, atol=1e-15)
    far = kernel(tf.constant([-1e30, 1e30], tf.float64)).numpy()
    np.testing.assert_allclose(far, [0, 1], rtol=0, atol=1e-29)
    slope = derivative(kernel, X)
    inner = np.abs(np.abs(X) - 0.5) > 1e-9  # the corners of uniform
    step = 1e-6
    numeric = (kernel(tf.constant(X + step)) - kernel(tf.constant(X - step))).numpy() / (2 * step)
    np.testing.assert_allclose(slope[inner], numeric[inner], rtol=0, atol=2e-6)
    assert slope[len(X) // 2] == slope.max() > 0  # a unit right at its threshold learns the most


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_is_finite_everywhere(name: str, dtype: Any) -> None:
    edge = np.finfo(dtype).max
    x = np.array([-np.inf, -edge, -1, 0, 1, edge, np.inf], dtype)
    value = KERNELS[name](tf.constant(x)).numpy()
    assert np.isfinite(value[1:-1]).all() and np.isfinite(derivative(KERNELS[name], x)[1:-1]).all()
    assert value.dtype == dtype


def test_logistic_lives_on_both_sides_alike() -> None:
    """tf.sigmoid's own derivative is 0 in float32 from 17 on, where the unit below the threshold still has one."""
    x = np.array([-80, -40, -17, 17, 40, 80], np.float32)
    slope = derivative(KERNELS["logistic"], x)
    assert (slope > 0).all()
    np.testing.assert_array_equal(slope, slope[::-1])
    assert derivative(tf.sigmoid, x)[-1] == 0


@pytest.mark.parametrize("name", SNNTORCH)
def test_snntorch_by_name(name: str) -> None:
    temperature, factor, theirs = SNNTORCH[name]
    x = X[::40]
    ours = factor * derivative(lambda u: named(name)(u / temperature), x)
    np.testing.assert_allclose(ours, theirs(x), rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_kernel_is_refused_with_a_reason_and_another(name: str) -> None:
    with pytest.raises(GradpassError, match=f"--kernel {name.upper()} is no kernel: .*; take ") as refusal:
        named(name.upper())
    assert any(known in str(refusal.value).partition("; take ")[2] for known in (*KERNELS, "nearest"))


def test_an_unknown_one_names_the_others() -> None:
    with pytest.raises(GradpassError, match="does not know 'nope'; choose from logistic, "):
        named("nope")


def test_the_kernel_asked_for_is_the_one_used(tmp_path: Any) -> None:
    """A threshold's gradient is F'(x / T) / T of the kernel, by every name."""
    source = save_expressions(tmp_path / "m", ["tf.cast(v > 0.1, f)"], tf.float64)
    for name, kernel in KERNELS.items():
        done = repair(read(source), temperature=2.0, absolute_temperature=True, kernel=name)
        assert done.pb is not None
        fixed = tf.saved_model.load(str(with_pb(source, tmp_path / name, done.pb)))
        (gradient,) = gradients(fixed.signatures["hit_0"], [fixed.v])
        cotangent = np.random.default_rng(0).normal(size=[4, 3])
        expected = cotangent * derivative(kernel, (fixed.v.numpy() - 0.1) / 2) / 2
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=0)


def test_math_of_gaussian() -> None:
    assert KERNELS["gaussian"](tf.constant(1.0, tf.float64)).numpy() == 0.5 * (1 + math.erf(1 / math.sqrt(2)))
