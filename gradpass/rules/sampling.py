"""Sampling: a drawn index follows the noise that drew it, a drawn count its mean."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import MOST, Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Shadow

LOWEST = -1e30  # stands for a logit of -inf, whose noise would be inf - inf


class PosteriorGumbel(Rule):
    """A category drawn from logits becomes the Gumbel-softmax of the noise that drew it.

    The op keeps its noise to itself. So Gumbel noise g is drawn from its distribution given the sample: the sample is
    the argmax of logits + g, and the weights are softmax((logits + g) / T), of which a derivative is taken with g held.
    T is not relative: the noise has a scale of its own. g comes from a stateless generator seeded by the sample and the
    leading digits of the logits, so the same call gives the same gradient. Sources: Jang, Gu, Poole, "Categorical
    Reparameterization with Gumbel-Softmax", 2017; Maddison, Tarlow, Minka, "A* Sampling", 2014 (truncated Gumbels);
    Paulus, Maddison, Krause, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator", 2021.
    """

    name = "posterior-gumbel"
    ops = ("Multinomial", "StatelessMultinomial")
    no_limit = "the derivative holds the noise"
    hits = (
        "tf.reduce_sum(tf.cast(tf.random.stateless_categorical(v, 4, [1, 2]), f))",
        "tf.reduce_sum(tf.gather(c, tf.random.stateless_categorical(v, 2, [3, 4])), [1, 2])",
        "tf.one_hot(tf.random.stateless_categorical(tf.where(v > 2, tf.constant(-float('inf'), f), v), 1, [5, 6]), 3)",
    )

    def shadow(self, site: Site) -> Shadow:
        """From logits [B, C] and samples [B, N] weights [B, N, C]."""
        sample = site.outcome(0)
        logits = site.numeric(0)
        sizes = [*sample.shape, logits.shape[-1]]
        known = 1
        for size in sizes:
            known *= size or 1
        if known > MOST:
            site.decline(f"{known} weights, one for every sample and class, are too many; draw fewer at a time")
        scores = tf.nn.log_softmax(tf.maximum(logits, LOWEST))[:, None, :]
        noise = tf.stop_gradient(posterior_noise(scores, sample, logits.shape[-1] or tf.shape(logits)[-1]))
        weights = tf.nn.softmax((scores + noise) / site.scale)
        return Categorical(weights, tf.cast(tf.range(tf.shape(weights)[-1]), site.dtype), counts=True)


def posterior_noise(scores: Any, sample: Any, classes: Any) -> Any:
    """Gumbel noise [B, N, C] for log-probabilities [B, 1, C], given that each sample [B, N] is the argmax of their sum.

    The maximum z is Gumbel and independent of which entry attains it; each other entry is a Gumbel of its own score
    truncated at z: -log(exp(-z) + e / p) with e exponential (Maddison et al. 2014, section 2).
    """
    shape = tf.concat([tf.shape(sample), [classes]], 0)
    uniform = tf.random.stateless_uniform(shape, seed_of(scores, sample), minval=1e-30, dtype=scores.dtype)
    waits = -tf.math.log(uniform)
    chosen = tf.one_hot(sample, classes, on_value=True, off_value=False, dtype=tf.bool)
    top = -tf.math.log(tf.reduce_sum(tf.where(chosen, waits, tf.zeros_like(waits)), -1, keepdims=True))
    below = -tf.reduce_logsumexp(tf.stack([tf.broadcast_to(-top, shape), tf.math.log(waits) - scores]), 0)
    return tf.where(chosen, top, below) - scores


def seed_of(scores: Any, sample: Any) -> Any:
    """A seed [2] from the sample and the scores in bfloat16: it stays while they move by less than those digits."""
    digits = tf.cast(tf.bitcast(tf.cast(scores, tf.bfloat16), tf.uint16), tf.int64)
    return tf.stack([_mixed(digits), _mixed(tf.cast(sample, tf.int64))])


def _mixed(numbers: Any) -> Any:
    """One int64 from many, in which order counts."""
    flat = tf.reshape(numbers, [-1])
    places = tf.range(1, tf.size(flat, out_type=tf.int64) + 1, dtype=tf.int64)
    return tf.reduce_sum((flat + 1) * (places * 0x9E3779B1 + 0x7F4A7C15))


class MeanCount(Rule):
    """A count drawn at random becomes its mean: the rate of a Poisson, counts * probs of a binomial distribution.

    The forward value is the count that was drawn; the derivative is that of the mean, which is unbiased where the loss
    is linear in the count and biased elsewhere: d E[f(X)] / d rate = E[f(X + 1) - f(X)] for a Poisson X, of which
    f'(X) is the first term. The straight-through estimator of Bengio, Léonard, Courville, "Estimating or Propagating
    Gradients Through Stochastic Neurons for Conditional Computation", 2013, for counts. In soft mode the value is the
    mean.
    """

    name = "mean-count"
    ops = ("RandomPoissonV2", "StatelessRandomPoisson", "StatelessRandomBinomial", "StatefulRandomBinomial")
    no_limit = "the soft value is the mean, not the sample"
    hits = (
        "tf.reduce_sum(tf.random.stateless_poisson([4, 3], [1, 2], tf.exp(v), f))",
        "tf.reduce_sum(tf.random.stateless_binomial([2, 4, 3], [1, 2], 9.0, tf.sigmoid(v), f) ** 2)",
        "tf.cast(tf.random.stateless_binomial([4, 3], [1, 2], 9.0, tf.sigmoid(v), tf.int32), f)",
    )

    def shadow(self, site: Site) -> Shadow:
        """From parameters that broadcast against the sample; RandomPoissonV2 puts its own shape in front of theirs."""
        last = len(site.node.inputs) - 1
        mean = site.numeric(last)
        if site.node.op.endswith("Binomial"):
            mean = mean * site.numeric(last - 1)
        return Numeric(tf.broadcast_to(mean, tf.shape(site.outcome(0))))
