"""GP1xx: a choice, made by a comparison, an index or a rank."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code
from gradpass.report.site import Site


class HardThreshold(Code):
    """A comparison answers true or false. Its answer does not change when its input moves a little, so its derivative
    is 0 nearly everywhere and TensorFlow registers none: what comes before the comparison gets None.

    Thresholds in a model (a mask, a gate, an accuracy as a loss) learn through a surrogate: the forward pass keeps
    the hard answer, the backward pass uses the derivative of a smooth step, the chance that the comparison is true.
    """

    code = "GP101"
    name = "hard-threshold"
    ops = (
        "ApproximateEqual", "Equal", "Greater", "GreaterEqual", "IsFinite", "IsInf", "IsNan", "Less", "LessEqual",
        "NotEqual",
    )  # fmt: skip
    message = "{what} answers true or false, which has no derivative: {whom} {gets}"
    help = "use a smooth step: `tf.sigmoid((x - y) / width)` in place of x > y"
    helps: ClassVar = {
        **dict.fromkeys(
            ("ApproximateEqual", "Equal", "NotEqual"),
            "use a smooth bump: `tf.exp(-(((x - y) / width) ** 2))` in place of x == y",
        ),
        **dict.fromkeys(
            ("IsFinite", "IsInf", "IsNan"),
            "leave it out of the loss; `tf.where(tf.math.is_finite(x), x, 0.0)` skips bad values and keeps the others",
        ),
    }
    failing = """
v = tf.Variable([-0.3, 0.2, 0.9])

def loss():
    return tf.reduce_sum(tf.cast(v > 0.1, tf.float32))
"""
    fixed = """
v = tf.Variable([-0.3, 0.2, 0.9])

def loss():
    return tf.reduce_sum(tf.sigmoid((v - 0.1) / 0.1))
"""


class ByPredicate(Code):
    """Only the choice of a branch depends on these targets, none of the values that the branches give. Which branch
    runs does not change when its condition moves a little, so the derivative is 0 nearly everywhere and TensorFlow
    answers None.
    """

    code = "GP118"
    name = "predicate-only"
    message = "{what} only decides which branch runs, and a choice has no derivative: {whom} {gets}"
    help = "mix both branches: `p = tf.sigmoid(x / width)`, then `p * first + (1.0 - p) * second`"
    failing = """
v = tf.Variable([-0.3, 0.9])

def loss():
    return tf.cond(tf.reduce_sum(v) > 0.0, lambda: tf.constant(1.0), lambda: tf.constant(2.0))
"""
    fixed = """
v = tf.Variable([-0.3, 0.9])

def loss():
    p = tf.sigmoid(tf.reduce_sum(v) / 0.1)
    return p * 1.0 + (1.0 - p) * 2.0
"""

    @classmethod
    def fits(cls, site: Site) -> bool:
        """Everything discrete that is made of the cut ends as the predicate of a branch or a loop."""
        return site.decides_only


class MetricAsLoss(Code):
    """Accuracy, and any other share of right answers, counts: it stays the same when the scores move a little. What is
    right for watching the training gives nothing to train with.
    """

    code = "GP119"
    name = "metric-as-loss"
    ops = ("InTopK", "InTopKV2")
    message = "{what} tells only right from wrong, which makes a metric and no loss: {whom} {gets}"
    help = "train on the scores: `tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)`"
    helps: ClassVar = dict.fromkeys(
        ("Greater", "GreaterEqual", "Less", "LessEqual"),
        "train on the scores: `tf.nn.sigmoid_cross_entropy_with_logits(truth, scores)`",
    )
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
labels = tf.constant([1, 2], tf.int64)

def loss():
    return -tf.reduce_mean(tf.cast(tf.equal(tf.argmax(v, axis=1), labels), tf.float32))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
labels = tf.constant([1, 2], tf.int64)

def loss():
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, v))
"""

    @classmethod
    def fits(cls, site: Site) -> bool:
        """What is made of the cut is judged (equal to a label, all, any), and the truth values are made numbers."""
        return site.is_judged


class HardArgmax(Code):
    """An index is a whole number: it does not change when the scores move a little, and then it jumps.

    TensorFlow answers None for everything that reaches the loss only through tf.argmax or tf.argmin, also where the
    index is used to look something up (tf.gather) or to make a one-hot row. The surrogate is the softmax of the scores:
    a distribution over indices, which makes of a look-up an expectation.
    """

    code = "GP102"
    name = "hard-argmax"
    ops = ("ArgMax", "ArgMin")
    message = "{what} picks an index, which has no derivative: {whom} {gets}"
    help = "use `tf.nn.softmax(scores)` as weights: `tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`"
    helps: ClassVar = {
        "ArgMin": "use `tf.nn.softmax(-scores)` as weights: `tf.reduce_sum(tf.nn.softmax(-scores) * values, -1)`",
    }
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])
codes = tf.constant([1.0, 2.0, 4.0])

def loss():
    return tf.reduce_sum(tf.gather(codes, tf.argmax(v, axis=1)))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])
codes = tf.constant([1.0, 2.0, 4.0])

def loss():
    return tf.reduce_sum(tf.nn.softmax(v) * codes)
"""


class HardRanking(Code):
    """tf.math.top_k gives its values a gradient; its indices, and the ranks that tf.argsort makes of them, have none: a
    rank is a whole number that jumps when two entries change places.
    """

    code = "GP105"
    name = "hard-ranking"
    ops = ("TopK", "TopKV2", "ApproxTopK")
    message = "{what} is used for its indices, and ranks have no derivative: {whom} {gets}"
    help = (
        "use soft ranks, `tf.reduce_sum(tf.sigmoid((x[..., None, :] - x[..., None]) / width), -1)`, "
        "or what is ranked: `tf.math.top_k(x, k).values`"
    )
    failing = """
v = tf.Variable([0.3, 0.9, 0.5])

def loss():
    return tf.reduce_sum(tf.cast(tf.math.top_k(v, 2).indices, tf.float32))
"""
    fixed = """
v = tf.Variable([0.3, 0.9, 0.5])

def loss():
    return tf.reduce_sum(tf.math.top_k(v, 2).values)
"""
