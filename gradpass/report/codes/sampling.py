"""GP1xx: samples of discrete distributions."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code


class Sampling(Code):
    """The category that is drawn does not change smoothly with the scores, so TensorFlow gives the scores None. A
    relaxation (Gumbel-softmax) or a score-function estimator does have a gradient.
    """

    code = "GP106"
    name = "category-sampling"
    ops = ("Multinomial", "StatelessMultinomial")
    message = "{what} draws a category, which has no derivative: {whom} {gets}"
    help = (
        "draw softly: `noise = -tf.math.log(-tf.math.log(tf.random.uniform(tf.shape(logits), 1e-9)))`, then "
        "`tf.nn.softmax((logits + noise) / temperature)`"
    )
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return tf.reduce_sum(tf.cast(tf.random.categorical(v, 4), tf.float32))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    noise = -tf.math.log(-tf.math.log(tf.random.uniform([4, 3], 1e-9)))
    return tf.reduce_sum(tf.nn.softmax((v + noise) / 0.5) * tf.range(3.0))
"""


class CountSampling(Code):
    """A sample of a Poisson or binomial distribution is a whole number that does not change smoothly with its
    parameters. TensorFlow gives the parameters None, or raises LookupError where it registers nothing at all.
    """

    code = "GP125"
    name = "count-sampling"
    ops = (
        "RandomPoisson", "RandomPoissonV2", "StatefulRandomBinomial", "StatelessRandomBinomial",
        "StatelessRandomPoisson",
    )  # fmt: skip
    message = "{what} draws a count, which has no derivative: {whom} {gets}"
    help = "use the rate itself, or the normal approximation: `rate + tf.sqrt(rate) * tf.random.normal(shape)`"
    helps: ClassVar = dict.fromkeys(
        ("StatefulRandomBinomial", "StatelessRandomBinomial"),
        "use the mean, `n * p`, or the normal approximation: "
        "`n * p + tf.sqrt(n * p * (1.0 - p)) * tf.random.normal(shape)`",
    )
    says = "LookupError"
    failing = """
v = tf.Variable([0.5, 1.0])

def loss():
    return tf.reduce_sum(tf.random.poisson([4], tf.exp(v)))
"""
    fixed = """
v = tf.Variable([0.5, 1.0])

def loss():
    rate = tf.exp(v)
    return tf.reduce_sum(rate + tf.sqrt(rate) * tf.random.normal([4, 2], seed=1))
"""
