"""Samples: the noise that a surrogate holds drew the sample, and counts have the derivative of their mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from gradpass.rules.sampling import posterior_noise, seed_of
from tests.models import V, gradients, save_expressions, with_pb

LOGITS = np.log([[0.5, 0.3, 0.2], [0.05, 0.15, 0.8]])
DRAWS = 40_000


@pytest.fixture(scope="module")
def drawn() -> tuple[Any, Any]:
    """Samples [2, DRAWS] of their distribution, and the noise [2, DRAWS, 3] given them."""
    sample = tf.random.stateless_categorical(LOGITS, DRAWS, [1, 2])
    noise = posterior_noise(tf.constant(LOGITS)[:, None, :], sample, 3)
    return sample.numpy(), noise.numpy()


def test_the_sample_is_the_argmax_of_logits_and_noise(drawn: tuple[Any, Any]) -> None:
    sample, noise = drawn
    np.testing.assert_array_equal((LOGITS[:, None, :] + noise).argmax(-1), sample)


def test_over_all_samples_the_noise_is_gumbel(drawn: tuple[Any, Any]) -> None:
    """Kolmogorov-Smirnov against exp(-exp(-g)): 2.2 / sqrt(n) is exceeded by chance once in 8000 times."""
    _, noise = drawn
    for row in noise.transpose(0, 2, 1).reshape(6, DRAWS):
        distribution = np.exp(-np.exp(-np.sort(row)))
        steps = np.arange(1, DRAWS + 1) / DRAWS
        assert max(abs(distribution - steps).max(), abs(distribution - steps + 1 / DRAWS).max()) < 2.2 / DRAWS**0.5


def test_entries_that_were_not_drawn_are_independent_of_each_other(drawn: tuple[Any, Any]) -> None:
    """Correlations over all samples are those of chance, 1 / sqrt(n) each; 5 of them is one in 10^6."""
    for row in drawn[1]:
        assert abs(np.corrcoef(row.T) - np.eye(3)).max() < 5 / DRAWS**0.5


def test_impossible_entries_and_certain_ones_stay_finite() -> None:
    scores = tf.constant([[[0.0, -1e30, -1e30]], [[-80.0, 0.0, -80.0]]])
    noise = posterior_noise(scores, tf.constant([[0, 0], [1, 1]], tf.int64), 3)
    assert np.isfinite(noise.numpy()).all()


def test_the_seed_knows_the_order_of_samples_and_stays_for_small_steps() -> None:
    scores = tf.constant(LOGITS[:, None, :], tf.float32)
    sample = tf.constant([[0, 1], [2, 2]], tf.int64)
    seed = seed_of(scores, sample).numpy()
    np.testing.assert_array_equal(seed, seed_of(scores + 1e-6, sample).numpy())
    for others in (scores, sample[::-1]), (scores[::-1], sample), (scores * 1.1, sample):
        assert (seed != seed_of(*others).numpy()).any()


class Fixed:
    """Expressions repaired, with the gradients of each output's sum."""

    def __init__(self, folder: Path, expressions: list[str], **options: Any) -> None:
        original = save_expressions(folder / "original", expressions)
        repaired = repair(read(original), entry="all", **options)
        assert repaired.pb is not None and not [s.declined for s in repaired.plan if s.declined]
        self.original = tf.saved_model.load(str(original))
        self.fixed = tf.saved_model.load(str(with_pb(original, folder / "fixed", repaired.pb)))

    def gradient(self, index: int) -> Any:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(self.fixed.signatures[f"hit_{index}"]()["y"])
        return tape.gradient(y, self.fixed.v).numpy()


def test_counts_have_the_derivative_of_their_mean(tmp_path: Path) -> None:
    both = Fixed(
        tmp_path,
        [
            "tf.random.stateless_poisson([4, 3], [1, 2], tf.exp(v), f)",
            "tf.random.poisson([2], tf.exp(v))",
            "tf.random.stateless_binomial([4, 3], [1, 2], 9.0, tf.sigmoid(v), f)",
        ],
    )
    p = 1 / (1 + np.exp(-V))
    for index, expected in enumerate([np.exp(V), 2 * np.exp(V), 9 * p * (1 - p)]):
        np.testing.assert_allclose(both.gradient(index), expected, rtol=1e-5)  # float32's exp and sigmoid


def test_bernoulli_and_top_k_by_gumbel_share_the_noise(tmp_path: Path) -> None:
    """The noise is a tensor of the graph there, so comparisons and top_k need to know nothing of it: with noise that
    puts an entry far from the threshold it gets less of the derivative than one that is near."""
    both = Fixed(
        tmp_path,
        [
            "tf.cast(tf.random.stateless_uniform([4, 3], [1, 2], dtype=f) < v, f)",
            "tf.gather(c, tf.math.top_k(v[0] - tf.math.log(-tf.math.log(tf.random.stateless_uniform([3], [1, 2],"
            " dtype=f))), 2).indices)",
        ],
        absolute_temperature=True,
        temperature=0.3,
    )
    noise = tf.random.stateless_uniform([4, 3], [1, 2]).numpy()
    p = 1 / (1 + np.exp(-(V - noise) / 0.3))
    np.testing.assert_allclose(both.gradient(0), p * (1 - p) / 0.3, rtol=1e-4)  # 1 - p in float32
    assert both.gradient(1)[0].any()
    for index in 0, 1:
        before, after = (m.signatures[f"hit_{index}"]()["y"].numpy() for m in (both.original, both.fixed))
        assert before.tobytes() == after.tobytes()


def test_categories_have_the_derivative_of_a_softmax_with_that_noise(tmp_path: Path) -> None:
    both = Fixed(tmp_path, ["tf.one_hot(tf.random.stateless_categorical(v, 2, [3, 4]), 3)"], temperature=0.7)
    v = tf.constant(V, tf.float32)
    sample = tf.random.stateless_categorical(v, 2, [3, 4])
    scores = tf.nn.log_softmax(v)[:, None, :]
    perturbed = (scores + posterior_noise(scores, sample, 3)).numpy() / 0.7
    weights = np.exp(perturbed) / np.exp(perturbed).sum(-1, keepdims=True)
    cotangent = np.random.default_rng(0).normal(size=weights.shape)
    pulled = weights * (cotangent - (weights * cotangent).sum(-1, keepdims=True)) / 0.7
    (found,) = gradients(both.fixed.signatures["hit_0"], [both.fixed.v])
    np.testing.assert_allclose(found, pulled.sum(1), rtol=1e-3, atol=1e-6)  # logarithms of float32 noise


def test_unseeded_samples_get_a_gradient_too(tmp_path: Path) -> None:
    both = Fixed(tmp_path, ["tf.gather(c, tf.random.categorical(v, 5))"])
    found = both.gradient(0)
    assert np.isfinite(found).all() and found.any()
