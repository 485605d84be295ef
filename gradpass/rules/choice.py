"""Choices: the index of the best, and what is looked up by it."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Shadow, distribution


class SoftmaxArgmax(Rule):
    """The index of the largest (smallest) entry becomes a distribution over indices: the softmax of the entries.

    With temperature T the weights are softmax(x / (T * std(x))) along the class axis, the spread taken a row at a time;
    as T goes to 0 all weight is on the index that the op gives. Source: Jang, Gu, Poole, "Categorical
    Reparameterization
    with Gumbel-Softmax", 2017, without the noise.
    """

    name = "softmax-argmax"
    ops = ("ArgMax", "ArgMin")
    hits = (
        "tf.reduce_sum(tf.cast(tf.argmax(v, 1), f))",
        "tf.reduce_sum(tf.gather(c, tf.argmin(v, 1)))",
        "tf.reduce_sum(tf.one_hot(tf.argmax(v, 0), 4, dtype=f) * 0.5, axis=0)",
    )
    misses = (("tf.cast(tf.argmax(v, tf.cast(tf.reduce_sum(tf.ones([1])), tf.int32)), f)", "computed at run time"),)

    def shadow(self, site: Site) -> Shadow:
        axis = int(site.static(1))
        scores = site.numeric(0)
        if site.node.op == "ArgMin":
            scores = -scores
        # The softmax of an infinite score is NaN; the largest finite one is chosen as surely.
        scores = tf.where(tf.equal(scores, float("inf")), tf.fill(tf.shape(scores), scores.dtype.max), scores)
        weights = tf.nn.softmax(scores / site.temperature(scores, axis), axis=axis)
        rank = len(scores.shape)
        order = [i for i in range(rank) if i != axis % rank] + [axis % rank]
        support = tf.cast(tf.range(tf.shape(scores)[axis]), site.dtype)
        return Categorical(tf.transpose(weights, order), support, counts=True)


class SoftOneHot(Rule):
    """The one-hot row of a soft index is its distribution; a soft number is shared between its two neighbours."""

    name = "soft-one-hot"
    ops = ("OneHot",)
    hits = (
        "tf.reduce_sum(tf.one_hot(tf.argmax(v, 1), 3, dtype=f) @ c)",
        "tf.reduce_sum(tf.one_hot(tf.argmax(v, 1), 3, axis=0, on_value=2.0, off_value=-1.0, dtype=f))",
        "tf.reduce_sum(tf.one_hot(tf.cast(v, tf.int32), 4, dtype=f) * tf.range(4, dtype=f))",
    )

    def shadow(self, site: Site) -> Shadow:
        depth = site.hard(1)
        weights = site.weights(0, depth)
        axis = site.node.attr("axis").i
        rank = len(weights.shape)
        if axis not in (-1, rank - 1):
            order = list(range(rank - 1))
            order.insert(axis, rank - 1)
            weights = tf.transpose(weights, order)
        on, off = site.numeric(2), site.numeric(3)
        return site.output(off + (on - off) * weights)


class ExpectedGather(Rule):
    """What is looked up by a soft index is its expectation: the table's rows mixed by the index's weights.

    A table of whole numbers looked up along its only axis keeps the distribution and changes its support, so that
    further comparisons stay exact. The table's own gradient stays what TensorFlow makes it.
    """

    name = "expected-gather"
    ops = ("GatherV2", "Gather", "ResourceGather")
    hits = (
        "tf.reduce_sum(tf.gather(c, tf.argmax(v, 1)))",
        "tf.reduce_sum(tf.gather(tf.transpose(c), tf.argmax(v, 1), axis=1))",
        "tf.reduce_sum(tf.gather(tf.reshape(tf.range(12, dtype=f) ** 2, [4, 3]), tf.argmax(v, 1), batch_dims=1))",
        "tf.reduce_sum(tf.cast(tf.gather(tf.constant([7, 5, 1]), tf.argmax(v, 1)) > 4, f))",
    )

    def shadow(self, site: Site) -> Shadow:
        index = site.shadow(1)
        if index is None:
            return self._carried(site)
        table, dtype = self._table(site)
        axis, batch = self._axes(site)
        if batch < 0:
            batch += site.rank(1)
        if axis < 0:
            axis += len(table.shape)
        if len(table.shape) == 1 and isinstance(index, Categorical) and dtype != 10 and not site.shadow(0):
            kept = _lookup(table, index)
            if not _is_float_dtype(dtype):
                return kept
        weights = site.weights(1, tf.shape(table)[axis])
        return site.output(_mix(weights, table, axis, batch))

    @staticmethod
    def _carried(site: Site) -> Shadow:
        """Only the table is a shadow: the same rows of it."""
        value = site.replay([site.numeric(0), *(site.hard(i) for i in range(1, len(site.node.inputs)))])[0]
        return site.output(value)

    @staticmethod
    def _table(site: Site) -> tuple[Any, int]:
        dtype = site.node.output_dtype(0)
        if site.node.op == "ResourceGather":
            return tf.cast(site.variable(0), site.dtype), dtype
        return site.numeric(0), dtype

    @staticmethod
    def _axes(site: Site) -> tuple[int, int]:
        batch = site.node.attr("batch_dims")
        axis = int(site.static(2)) if site.node.op == "GatherV2" else int(batch.i) if batch else 0
        return axis, int(batch.i) if batch else 0


def _is_float_dtype(dtype: int) -> bool:
    return dtype in (1, 2, 14, 19)


def _lookup(table: Any, index: Categorical) -> Categorical:
    """The distribution of table[index]: the same weights over the looked-up values."""
    inside = tf.clip_by_value(tf.cast(index.support, tf.int32), 0, tf.shape(table)[0] - 1)
    return distribution(index.weights, tf.gather(table, inside))


def _mix(weights: Any, table: Any, axis: int, batch: int) -> Any:
    """sum_n weights[b, i, n] table[b, p, n, q] -> [b, p, i, q], as tf.gather lays its result out."""
    letters = iter("abcdefghijklmopqrstuvwxyz")  # n is the axis that is summed
    shared = "".join(next(letters) for _ in range(batch))
    index = "".join(next(letters) for _ in range(len(weights.shape) - 1 - batch))
    before = "".join(next(letters) for _ in range(axis - batch))
    after = "".join(next(letters) for _ in range(len(table.shape) - axis - 1))
    return tf.einsum(f"{shared}{index}n,{shared}{before}n{after}->{shared}{before}{index}{after}", weights, table)
