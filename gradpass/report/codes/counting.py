"""GP1xx: counts, buckets, and what stands but once."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class Counting(Code):
    """How many values fall into a bin stays the same until one of them crosses an edge, and then it jumps. TensorFlow
    gives the values None.
    """

    code = "GP107"
    name = "histogram"
    ops = ("HistogramFixedWidth",)
    message = "{what} counts values, and counts have no derivative: {whom} {gets}"
    help = (
        "count softly: `beyond = tf.reduce_sum(tf.sigmoid((x[:, None] - edges) / width), 0)`, then "
        "`beyond[:-1] - beyond[1:]`"
    )
    failing = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    counts = tf.histogram_fixed_width(v, [0.0, 1.0], nbins=4)
    return tf.reduce_sum(tf.cast(counts, tf.float32) ** 2)
"""
    fixed = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    edges = tf.constant([0.0, 0.25, 0.5, 0.75, 1.0])
    beyond = tf.reduce_sum(tf.sigmoid((v[:, None] - edges) / 0.05), axis=0)
    return tf.reduce_sum((beyond[:-1] - beyond[1:]) ** 2)
"""


class Bucketing(Code):
    """The number of a bucket (tf.searchsorted, tf.raw_ops.Bucketize, a Discretization layer) is whole: it stays the
    same until the value crosses a boundary. TensorFlow gives the value None.
    """

    code = "GP114"
    name = "bucketing"
    ops = ("Bucketize", "LowerBound", "UpperBound")
    message = "{what} tells only the bucket of a value, which has no derivative: {whom} {gets}"
    help = "add up smooth steps: `tf.reduce_sum(tf.sigmoid((x[..., None] - boundaries) / width), -1)`"
    failing = """
v = tf.Variable([0.1, 0.7, 2.8])

def loss():
    buckets = tf.searchsorted([0.5, 1.0, 2.0], v)
    return tf.reduce_sum(tf.cast(buckets, tf.float32))
"""
    fixed = """
v = tf.Variable([0.1, 0.7, 2.8])

def loss():
    boundaries = tf.constant([0.5, 1.0, 2.0])
    return tf.reduce_sum(tf.sigmoid((v[:, None] - boundaries) / 0.2))
"""


class WeightedCount(Code):
    """A count with weights is a sum of the weights in each bin, which has an exact derivative. TensorFlow does not
    register it, so it raises LookupError.
    """

    code = "GP121"
    name = "weighted-count"
    ops = ("Bincount", "DenseBincount", "SparseBincount", "RaggedBincount")
    message = "{what} gives the weights that it adds up no gradient: {whom} {gets}"
    help = "use `tf.math.unsorted_segment_sum(weights, values, n)` for n bins: the same sums, with a gradient"
    says = "LookupError"
    failing = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    return tf.reduce_sum(tf.math.bincount([0, 1, 1], weights=v) ** 2)
"""
    fixed = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    return tf.reduce_sum(tf.math.unsorted_segment_sum(v, [0, 1, 1], 2) ** 2)
"""


class UniqueValues(Code):
    """tf.unique picks one of several equal values. What it picks is a copy of its input, whose derivative is exact and
    not registered, so TensorFlow raises LookupError.
    """

    code = "GP122"
    name = "unique-values"
    ops = ("Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2")
    message = "{what} gives no gradient to the values that it keeps: {whom} {gets}"
    help = "use `tf.math.unsorted_segment_mean(x, tf.unique(x).idx, n)`: the same n values, with a gradient"
    says = "LookupError"
    failing = """
v = tf.Variable([2.0, 2.0, 1.0])

def loss():
    return tf.reduce_sum(tf.unique(v).y ** 2)
"""
    fixed = """
v = tf.Variable([2.0, 2.0, 1.0])

def loss():
    values, places = tf.unique(v)
    return tf.reduce_sum(tf.math.unsorted_segment_mean(v, places, tf.size(values)) ** 2)
"""
