"""Soft order: brute force, derivatives, limits, ties, one entry, infinite entries, batch axes, size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.soft import order
from gradpass.soft.laplace import BLOCK, laplace_sums
from tests.soft.derivatives import assert_derivative

INF = float("inf")
X = np.random.default_rng(7).normal(size=(2, 3, 10))
EXACT = 1e-12  # float64 sums of some hundred terms of size 1


def means(weights: Any, payload: Any) -> Any:
    return tf.linalg.matvec(weights, tf.cast(payload, weights.dtype))


SORTS: dict[str, Callable[..., Any]] = {
    "softsort": order.sort,
    "permutahedron": order.permutahedron_sort,
    "neuralsort": lambda x, t, descending=False: means(order.neuralsort(x, t, descending=descending), x),
}
RANKS: dict[str, Callable[..., Any]] = {"softsort": order.rank, "permutahedron": order.permutahedron_rank}


def hard_ranks(x: np.ndarray, descending: bool = False) -> np.ndarray:
    return np.argsort(np.argsort(-x if descending else x, axis=-1, kind="stable"), axis=-1)


@pytest.mark.parametrize("n", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_laplace_sums_are_the_sums(n: int, sign: int) -> None:
    rng = np.random.default_rng(n)
    s = sign * np.sort(5 * rng.normal(size=(2, n)), axis=-1)
    payload = rng.normal(size=(2, 3, n))
    brute = np.einsum("bij,bmj->bmi", np.exp(-np.abs(s[:, :, None] - s[:, None, :])), payload)
    np.testing.assert_allclose(laplace_sums(tf.constant(s), tf.constant(payload)), brute, rtol=0, atol=EXACT * n)


@pytest.mark.parametrize("n", [1, 10, 3 * BLOCK + 5])
@pytest.mark.parametrize("descending", [False, True])
def test_what_takes_n_log_n_is_what_the_weights_say(n: int, descending: bool) -> None:
    x = tf.constant(np.random.default_rng(n).normal(size=(2, n)))
    anchors = tf.sort(x, direction="DESCENDING" if descending else "ASCENDING")
    weights = order.softsort(x, anchors, 0.3)
    np.testing.assert_allclose(order.sort(x, 0.3, descending), means(weights, x), rtol=0, atol=EXACT * n)
    places = np.arange(n)
    np.testing.assert_allclose(order.argsort(x, 0.3, descending), means(weights, [places] * 2), rtol=0, atol=EXACT * n)
    by_rank = order.softsort(anchors, x, 0.3)
    np.testing.assert_allclose(order.rank(x, 0.3, descending), means(by_rank, [places] * 2), rtol=0, atol=EXACT * n)


def test_permutahedron_against_its_corners() -> None:
    """By brute force: the projection is the nearest of many mixtures of the corners, and no corner lies beyond it."""
    from itertools import permutations

    x, t = np.array([0.3, -1.0, 0.7, 0.1]), 0.4
    corners = np.array(list(permutations(x)))
    target = np.arange(4) / t
    made = order.permutahedron_sort(tf.constant(x), t).numpy()
    # Optimality: <target - p, corner - p> <= 0 for every corner; and p lies in the polytope, by majorisation.
    assert ((corners - made) @ (target - made)).max() <= EXACT
    assert abs(made.sum() - x.sum()) <= EXACT
    assert (np.cumsum(np.sort(made)[::-1]) <= np.cumsum(np.sort(x)[::-1]) + EXACT).all()
    ranks = order.permutahedron_rank(tf.constant(x), t).numpy()
    corners = np.array(list(permutations(range(4))))
    assert ((corners - ranks) @ (x / t - ranks)).max() <= EXACT


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("descending", [False, True])
def test_sort_tends_to_the_hard_one(name: str, descending: bool) -> None:
    expected = np.sort(X, -1)[..., ::-1] if descending else np.sort(X, -1)
    made = SORTS[name](tf.constant(X), 2e-5, descending=descending)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-9)  # z of up to 5e5 is taken off again


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("descending", [False, True])
def test_rank_tends_to_the_hard_one(name: str, descending: bool) -> None:
    made = RANKS[name](tf.constant(X), 2e-5, descending=descending)
    np.testing.assert_allclose(made, hard_ranks(X, descending), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SORTS)
def test_gradient_of_sort_is_the_derivative(name: str) -> None:
    assert_derivative(lambda x: SORTS[name](x, 0.4), X)


@pytest.mark.parametrize("name", RANKS)
def test_gradient_of_rank_is_the_derivative(name: str) -> None:
    assert_derivative(lambda x: RANKS[name](x, 0.4), X)


@pytest.mark.parametrize("mode", ["entropic", "p3/2", "p4/3"])
def test_gradient_of_weights_is_the_derivative(mode: str) -> None:
    assert_derivative(lambda x: order.top_k(x, 3, 0.9, mode)[1], X)
    assert_derivative(lambda x: order.neuralsort(x, 5.0, mode), X)


def test_gradient_of_the_rest_is_the_derivative() -> None:
    assert_derivative(lambda x: order.argsort(x, 0.4), X)
    assert_derivative(lambda x: order.quantile(x, 0.3, 0.4), X)
    assert_derivative(lambda x: order.top_k(x, 3, 0.4)[0], X)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 1.0])
def test_quantile_tends_to_the_hard_one(q: float) -> None:
    made = order.quantile(tf.constant(X), q, 2e-5)
    np.testing.assert_allclose(made, np.quantile(X, q, axis=-1), rtol=0, atol=EXACT)
    np.testing.assert_allclose(order.median(tf.constant(X), 2e-5), np.median(X, axis=-1), rtol=0, atol=EXACT)


def test_equal_entries_share_their_ranks() -> None:
    x = tf.constant([2.0, 1.0, 2.0, 0.0])
    for rank in RANKS.values():
        np.testing.assert_array_equal(rank(x, 1e-3), [2.5, 1.0, 2.5, 0.0])
    for sort in SORTS.values():
        np.testing.assert_allclose(sort(x, 1e-3), [0.0, 1.0, 2.0, 2.0], atol=1e-6)


def test_one_entry() -> None:
    x = tf.constant([[4.0]])
    for function in (*SORTS.values(), lambda x, t: order.quantile(x, 0.7, t)[..., None]):
        np.testing.assert_array_equal(function(x, 0.5), [[4.0]])
    for function in (*RANKS.values(), order.argsort):
        np.testing.assert_array_equal(function(x, 0.5), [[0.0]])


def test_infinite_entries_keep_their_places() -> None:
    x = tf.constant([INF, 1.0, -INF, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        made = {
            "sort": order.sort(x, 0.01),
            "rank": order.rank(x, 0.01),
            "argsort": order.argsort(x, 0.01),
            "projected": order.permutahedron_rank(x, 0.01),
            "best": order.top_k(x, 2, 0.01)[0],
            "middle": order.median(x, 0.01),
        }
    expected = {
        "sort": [-INF, 1.0, 2.0, INF],
        "rank": [3.0, 1.0, 0.0, 2.0],
        "argsort": [2.0, 1.0, 3.0, 0.0],
        "projected": [3.0, 1.0, 0.0, 2.0],
        "best": [INF, 2.0],
        "middle": 1.5,
    }
    for name, value in made.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
        assert np.isfinite(tape.gradient(value, x).numpy()).all(), name


def test_unknown_sizes() -> None:
    """Rows and entries that the graph does not know, as a SavedModel's signature has them."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float64)])
    def both(x: Any) -> list[Any]:
        made = [order.sort(x, 0.3), order.rank(x, 0.3), order.permutahedron_sort(x, 0.3), order.argsort(x, 0.3)]
        return [*made, *tf.gradients(made, x)]

    x = tf.constant(np.random.default_rng(3).normal(size=(4, 100)))
    made = [order.sort(x, 0.3), order.rank(x, 0.3), order.permutahedron_sort(x, 0.3), order.argsort(x, 0.3)]
    for ours, known in zip(both(x), made, strict=False):
        np.testing.assert_allclose(ours, known, rtol=0, atol=1e-10)
    assert np.isfinite(both(x)[-1].numpy()).all()


def test_a_hundred_thousand_entries() -> None:
    """A quadratic method would need 40 GB for the weights alone."""
    x = tf.constant(np.random.default_rng(4).normal(size=100_000), tf.float32)
    for function in (order.sort, order.rank, order.argsort, order.permutahedron_sort, order.permutahedron_rank):
        with tf.GradientTape() as tape:
            tape.watch(x)
            made = function(x, 1e-3)
        assert made.shape == [100_000]
        assert np.isfinite(tape.gradient(made, x).numpy()).all()
