"""Searching: the bucket in which a number lies, as a distribution over buckets."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import MOST, Rule, Site, finite
from gradpass.rules.kernels import named
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Shadow


class SoftBuckets(Rule):
    """The number of boundaries below x becomes a distribution over buckets: x with the kernel's noise lies in one.

    With F the kernel's distribution function the chance of being above boundary j is F((x - b_j) / T), and each bucket
    has the difference of two of these: what is looked up by the bucket, or one-hot, is its expectation. It is the
    ordered logit of McCullagh, "Regression Models for Ordinal Data", 1980. The temperature is relative to the spread
    of x.
    """

    name = "soft-buckets"
    ops = ("Bucketize", "LowerBound", "UpperBound")
    hits = (
        "tf.cast(tf.raw_ops.Bucketize(input=v, boundaries=[-0.5, 0.0, 0.75]), f)",
        "tf.gather(c, tf.searchsorted(tf.constant([-0.5, 0.4], f), v[0]))",
        "tf.cast(tf.searchsorted(tf.sort(v), v + 0.1, side='right'), f)",
        "tf.gather(c[0], tf.searchsorted(tf.constant([-float('inf'), 0.0, float('inf')], f), v[0]))",
        "tf.one_hot(tf.raw_ops.Bucketize(input=tf.argmax(v, 1), boundaries=[0.5]), 2, dtype=f)",
    )

    def shadow(self, site: Site) -> Shadow:
        if site.node.op == "Bucketize":
            edges = tf.constant(list(site.node.attr("boundaries").list.f), site.dtype)
            known = site.shadow(0)
            if isinstance(known, Categorical):
                return known.map(lambda x: tf.reduce_sum(tf.cast(x[..., None] >= edges, site.dtype), -1))
            return distribution_over(site, site.numeric(0), edges)
        edges, values = site.numeric(0), site.numeric(1)
        return distribution_over(site, values, edges[..., None, :])


def distribution_over(site: Site, x: Any, edges: Any) -> Categorical:
    """The distribution over the buckets 0 .. K of x [...], from ascending edges that broadcast to [..., K]."""
    return Categorical(buckets(site, x, edges), tf.cast(tf.range(tf.shape(edges)[-1] + 1), site.dtype), counts=True)


def buckets(site: Site, x: Any, edges: Any) -> Any:
    """The chances [..., K + 1] that x [...] lies below the first of K ascending edges, between two, or above the last.

    They add up to 1; beyond the outer edges nothing is lost.
    """
    places, several = x.shape.num_elements() or 1, (edges.shape[-1] or 0) + 1
    if places * several > MOST:
        site.decline(f"it sorts {places:,} numbers into {several:,} buckets; use fewer of either at once")
    apart = finite(x)[..., None] - finite(edges)
    above = named(site.knobs.kernel or "logistic")(apart / site.temperature(x))
    one = tf.ones_like(above[..., :1])
    above = tf.concat([one, above, 0 * one], -1)
    return above[..., :-1] - above[..., 1:]
