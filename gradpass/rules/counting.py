"""Counting: how often a value occurs, and which values there are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gradpass.flow.facts import is_float
from gradpass.program.graph import Node
from gradpass.rules.base import MOST, Kind, Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.lookup import interpolated
from gradpass.rules.search import buckets
from gradpass.rules.shadow import Categorical, Numeric, Shadow


class SoftHistogram(Rule):
    """A histogram's bins get from each value the chance that it lies there with the kernel's noise on it.

    The outer bins reach to infinity, as the op has it, so the bins add up to the number of values. The temperature is
    relative to the spread of the values. A kernel density in bins: Parzen, "On Estimation of a Probability Density
    Function and Mode", 1962.
    """

    name = "soft-histogram"
    ops = ("HistogramFixedWidth",)
    hits = (
        "tf.cast(tf.histogram_fixed_width(v, tf.constant([-1.0, 1.5], f), 4), f)",
        "tf.cast(tf.histogram_fixed_width(tf.constant([0.1, 0.6, 2.0], f), [v[0, 1], v[1, 0]], 5), f)",
    )

    def shadow(self, site: Site) -> Shadow:
        low, high = tf.unstack(site.numeric(1))
        count = site.hard(2)
        x = tf.reshape(site.numeric(0), [-1])
        inner = low + (high - low) * tf.cast(tf.range(1, count), site.dtype) / tf.cast(count, site.dtype)
        return Numeric(tf.reduce_sum(buckets(site, x, inner), 0))


class ExpectedCount(Rule):
    """Counts of whole numbers: exact for the weights that are added up, expectations for what is counted.

    A weight goes to the bin of its number, a linear function that TensorFlow has no gradient for. A number that is
    severed itself is counted where its distribution says; with `binary_output` a bin holds the chance that it occurs.
    """

    name = "expected-count"
    ops = ("Bincount", "DenseBincount")
    hits = (
        "tf.math.bincount(tf.constant([0, 2, 2, 1]), weights=v[:, 0], minlength=4, maxlength=4)",
        "tf.math.bincount(tf.constant([[0, 2, 7], [1, 1, 0]]), weights=v[:2], minlength=3, maxlength=3, axis=-1)",
        "tf.raw_ops.Bincount(arr=[0, 2, 2, 1], size=3, weights=v[:, 1])",
        "tf.cast(tf.math.bincount(tf.argmax(v, 1, output_type=tf.int32), minlength=3, maxlength=3), f)",
        "tf.math.bincount(tf.argmax(v, 1, output_type=tf.int32), weights=v[:, 1], minlength=2, maxlength=2)",
        "tf.cast(tf.math.bincount(tf.argsort(v[:, :2]), minlength=3, maxlength=3, axis=-1, binary_output=True), f) "
        "+ tf.cast(tf.math.bincount(tf.cast(v + 1.5, tf.int32), minlength=3, maxlength=3, axis=-1), f)",
    )

    def kind_of(self, node: Node, severed: Collection[int]) -> Kind:
        return "exact" if set(severed) == {2} else self.kind

    def shadow(self, site: Site) -> Shadow:
        binary = bool((flag := site.node.attr("binary_output")) and flag.b)
        if binary and site.shadow(2) is not None:
            site.decline("with binary_output the weights that it takes have no effect")
        size = site.hard(1)
        weights = self._weights(site)
        if site.shadow(0) is None:
            return Numeric(_added(site.hard(0), weights, tf.cast(size, tf.int64)))
        several = site.hard(0).shape.num_elements() or 1
        known = tf.get_static_value(size)
        bins = 1 if known is None else int(known)
        if several * bins > MOST:
            site.decline(f"it counts {several:,} numbers in {bins:,} bins; count fewer at once")
        chances = self._chances(site, tf.cast(size, tf.int32))
        if binary:
            return Numeric(1 - tf.reduce_prod(1 - chances, -2))
        return Numeric(tf.reduce_sum(chances * weights[..., None], -2))

    @staticmethod
    def _chances(site: Site, size: Any) -> Any:
        """Where each number is counted, [..., size]; what lies beyond is counted nowhere."""
        shadow = site.shadow(0)
        if isinstance(shadow, Categorical):
            return shadow.over(size)
        most = tf.cast(size, site.dtype)
        return interpolated(tf.clip_by_value(site.numeric(0), tf.zeros_like(most), most), size + 1)[..., :-1]

    @staticmethod
    def _weights(site: Site) -> Any:
        """One for each number; without weights the op is given an empty tensor."""
        given = site.numeric(2)
        if given.shape.num_elements() == 0:
            return tf.ones(tf.shape(site.hard(0)), site.dtype)
        return given


def _added(numbers: Any, weights: Any, size: Any) -> Any:
    """The sums of weights [n] or [b, n] by number, [size] or [b, size]; what lies beyond is dropped."""
    numbers = tf.cast(numbers, tf.int64)
    rank = len(numbers.shape)
    rows = tf.shape(numbers, tf.int64)[0] if rank == 2 else tf.constant(1, tf.int64)
    first = tf.range(rows)[:, None] * size if rank == 2 else tf.constant(0, tf.int64)
    places = tf.where(numbers < size, numbers + first, -tf.ones_like(numbers))
    total = tf.math.unsorted_segment_sum(tf.reshape(weights, [-1]), tf.reshape(places, [-1]), rows * size)
    return tf.reshape(total, tf.stack([rows, size])) if rank == 2 else total


class UncountedBins(Rule):
    """Counts of sparse and ragged numbers are not followed."""

    name = "uncounted-bins"
    ops = ("SparseBincount", "RaggedBincount", "DenseCountSparseOutput", "SparseCountSparseOutput")
    misses = (
        (
            "tf.raw_ops.RaggedBincount(splits=[0, 2, 4], values=[0, 1, 1, 0], size=2, weights=v[:, 0])",
            "dense numbers",
        ),
    )

    def shadow(self, site: Site) -> Shadow:
        site.decline(f"{site.node.op} has no surrogate; count dense numbers: tf.math.bincount(x.to_tensor(-1) + 1)")


class FirstOccurrence(Rule):
    """Each unique value is the first of those that are equal to it: a selection, exact for the values.

    The counts of severed indices become the expected number that have each of the values found.
    """

    name = "first-occurrence"
    ops = ("Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2")
    hits = (
        "tf.unique(tf.concat([v[0], v[1], v[0]], 0)).y",
        "tf.raw_ops.UniqueV2(x=tf.concat([v, v], 0), axis=[0]).y",
        "tf.gather(c, tf.unique(tf.argmax(v, 1)).y)",
        "tf.cast(tf.unique_with_counts(tf.argmax(v, 1)).count, f)",
    )
    misses = (
        ("tf.cast(tf.unique_with_counts(tf.cast(4 * v[0], tf.int32)).count, f)", "tf.math.bincount"),
        ("tf.cast(tf.unique(v[0]).idx, f)", "no surrogate"),
        ("tf.gather(c, tf.unique(tf.argmax(v, 1)).idx)", "no surrogate"),
    )

    def kind_of(self, node: Node, severed: Collection[int]) -> Kind:
        dtype = node.attr("T")
        return "exact" if dtype is not None and is_float(dtype.type) else self.kind

    def shadow(self, site: Site) -> list[Shadow | None]:
        axis = 0
        if site.node.op.endswith("V2"):
            axes = site.static(1).reshape([-1])
            axis = int(axes[0]) % site.rank(0) if axes.size else 0
        groups, count = site.outcome(1), tf.shape(site.outcome(0))[axis]
        first = tf.math.unsorted_segment_min(tf.range(tf.size(groups)), groups, count)
        given = site.shadow(0)
        if not isinstance(given, Categorical):
            if 2 in site.used():
                site.decline("how often a number occurs hangs on equality; count in bins with tf.math.bincount")
            return [Numeric(tf.gather(site.numeric(0), first, axis=axis))]
        if len(given.support.shape) != 1 or site.rank(0) != 1:
            site.decline("what it compares has values of its own for each element; use tf.math.bincount")
        values = Categorical(tf.gather(given.weights, first), given.support, given.counts)
        if not site.node.op.startswith("UniqueWithCounts"):
            return [values]
        found = tf.cast(site.outcome(0), site.dtype)
        match = tf.cast(tf.equal(given.support[:, None], found), site.dtype)
        return [values, None, Numeric(tf.reduce_sum(given.weights @ match, 0))]
