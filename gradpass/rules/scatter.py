"""Placing: what is put, or added up, at a soft index is shared among the places by the index's weights."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import MOST, Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.lookup import coordinate
from gradpass.rules.shadow import Shadow


class SharedScatter(Rule):
    """A scatter at severed coordinates is its expectation: every update goes to all places, by their weights.

    Added or subtracted, the shares add up; put in a place (`tf.tensor_scatter_nd_update`), a share replaces as much of
    what was there, and where shares add up to more than 1 they are taken in proportion (so does what TensorFlow would
    put twice into one place, in an order that it leaves open). Coordinates are independent of
    each other, as in `average-gather-nd`. So a confusion matrix is the expected one.
    """

    name = "shared-scatter"
    ops = (
        "ScatterNd", "TensorScatterAdd", "TensorScatterSub", "TensorScatterUpdate", "TensorScatterMax",
        "TensorScatterMin",
    )  # fmt: skip
    hits = (
        "tf.scatter_nd(tf.argmax(v, 1)[:, None], c[0, :4], [3])",
        "tf.scatter_nd(tf.stack([tf.argmax(v, 1), [0, 1, 1, 0]], 1), tf.ones([4, 2], f), [3, 2, 2])",
        "tf.math.confusion_matrix([0, 1, 2, 0], tf.argmax(v, 1), 3, dtype=f)",
        "tf.tensor_scatter_nd_sub(c, tf.argmax(v, 1)[:, None], tf.ones([4, 5], f))",
        "tf.tensor_scatter_nd_update(c, tf.stack([tf.argmax(v, 1)[:2], tf.argmin(v, 1)[:2]], 1), c[0, 3:])",
        "tf.cast(tf.scatter_nd([[1], [0]], tf.cast(v[0, :2] > 0, tf.int32), [3]), f)",
    )
    misses = (("tf.tensor_scatter_nd_max(c, tf.argmax(v, 1)[:, None], tf.ones([4, 5], f))", "one-hot"),)

    def shadow(self, site: Site) -> Shadow:
        op = site.node.op
        indices, updates, base = (0, 1, None) if op == "ScatterNd" else (1, 2, 0)
        if op in ("TensorScatterMax", "TensorScatterMin"):
            site.decline("the largest of what meets in a soft place is not known; take it over a one-hot mask instead")
        shape = site.hard(2) if base is None else tf.shape(site.hard(0))
        rank = shape.shape[0]
        depth = site.hard(indices).shape[-1]
        if rank is None or depth is None:
            site.decline("the rank of what it makes is not known")
        placed = _Placed(site, indices, tf.cast(shape, tf.int32), int(rank), int(depth))
        total = placed.of(site.numeric(updates))
        if base is None:
            return site.output(total)
        before = site.numeric(base)
        if op == "TensorScatterAdd":
            return site.output(before + total)
        if op == "TensorScatterSub":
            return site.output(before - total)
        covered = placed.of(tf.ones_like(site.numeric(updates)))
        return site.output(before * tf.nn.relu(1 - covered) + total / tf.maximum(covered, 1))


class _Placed:
    """Where n coordinates of `depth` numbers put what belongs to them in a tensor of a shape."""

    def __init__(self, site: Site, index: int, shape: Any, rank: int, depth: int) -> None:
        places = site.hard(index)
        self.soft: dict[int, Any] = {}
        for i in range(depth):
            weights = coordinate(site, index, i, shape[i])
            if weights is not None:
                size = tf.cast(shape[i], tf.int32)
                self.soft[i] = tf.reshape(weights, tf.stack([-1, size]))
        self.hard = [i for i in range(depth) if i not in self.soft]
        self.rank, self.depth, self.shape = rank, depth, shape
        flat = tf.cast(tf.reshape(places, tf.stack([-1, depth])), tf.int32)
        self.count = tf.shape(flat)[0]
        self.row = tf.zeros([self.count], tf.int32)
        for i in self.hard:
            self.row = self.row * shape[i] + flat[:, i]
        self._check(site, places)

    def _check(self, site: Site, places: Any) -> None:
        several = 1
        for size in places.shape[:-1]:
            several *= size or 1
        known = tf.get_static_value(self.shape)
        for i, size in enumerate(known if known is not None else ()):
            several *= int(size) if i in self.soft or i >= self.depth else 1
        if several > MOST:
            site.decline(f"it would share its updates among {several:,} places; place fewer at once")

    def of(self, updates: Any) -> Any:
        """The sum of the shares of updates, one for each coordinate."""
        rest = self.shape[self.depth :]
        shares = tf.reshape(updates, tf.stack([self.count, 1, -1]))
        for weights in self.soft.values():
            shares = tf.reshape(shares[:, :, None, :] * weights[:, None, :, None], self._joined(shares, weights))
        rows = tf.reduce_prod(tf.gather(self.shape, self.hard)) if self.hard else 1
        total = tf.math.unsorted_segment_sum(shares, self.row, rows)
        order = [*self.hard, *self.soft, *range(self.depth, self.rank)]
        total = tf.reshape(total, tf.concat([tf.gather(self.shape, [*self.hard, *self.soft]), rest], 0))
        return tf.transpose(total, [order.index(i) for i in range(self.rank)])

    @staticmethod
    def _joined(shares: Any, weights: Any) -> Any:
        shape = tf.shape(shares)
        return tf.stack([shape[0], shape[1] * tf.shape(weights)[1], shape[2]])


class SharedSegments(Rule):
    """Rows that are added up by a severed segment are shared among all segments by its weights.

    Sums of `tf.math.segment_sum` and means of `tf.math.segment_mean` have as many rows as the op gives.
    """

    name = "shared-segments"
    ops = (
        "UnsortedSegmentSum", "SegmentSum", "SegmentMean", "UnsortedSegmentProd", "UnsortedSegmentMax",
        "UnsortedSegmentMin", "SegmentProd", "SegmentMax", "SegmentMin",
    )  # fmt: skip
    hits = (
        "tf.math.unsorted_segment_sum(c[:1, :4] * tf.reshape(tf.range(4, dtype=f), [4, 1]), tf.argmax(v, 1), 3)",
        "tf.math.unsorted_segment_mean(tf.range(4, dtype=f) ** 2, tf.argmax(v, 1), 3)",
        "tf.math.segment_sum(c[0, :4], tf.sort(tf.argmax(v, 1)))",
        "tf.math.segment_mean(c[0, :4], tf.cast(tf.cumsum(tf.cast(v[:, 0] > 1, tf.int32)), tf.int32))",
        "tf.cast(tf.math.unsorted_segment_sum(tf.cast(v > 0, tf.int32), [0, 1, 1, 0], 2), f)",
    )
    misses = (("tf.math.unsorted_segment_max(c[0, :4], tf.argmax(v, 1), 3)", "one-hot"),)

    def shadow(self, site: Site) -> Shadow:
        if site.shadow(1) is None:
            others = [site.hard(i) for i in range(1, len(site.node.inputs))]
            return site.output(site.replay([site.numeric(0), *others])[0])
        if not site.node.op.endswith(("Sum", "Mean")):
            site.decline("of a soft segment only sums and means are known; reduce over a one-hot mask instead")
        data, places = site.numeric(0), site.rank(1)
        count = tf.shape(site.outcome(0))[0]
        size = (site.hard(1).shape.num_elements() or 1) * (site.outcome(0).shape[0] or 1)
        if size > MOST:
            site.decline(f"it would share its rows among segments with {size:,} weights; add fewer up at once")
        weights = tf.reshape(site.weights(1, count), tf.stack([-1, count]))
        rest = tf.shape(data)[places:]
        rows = tf.reshape(data, tf.concat([[tf.shape(weights)[0]], [-1]], 0))
        total = tf.matmul(weights, rows, transpose_a=True)
        if site.node.op == "SegmentMean":
            total = tf.math.divide_no_nan(total, tf.reduce_sum(weights, 0)[:, None])
        return site.output(tf.reshape(total, tf.concat([[count], rest], 0)))


class UnknownSize(Rule):
    """How many entries there are would hang on a severed value, and a shape has no derivative."""

    name = "unknown-size"
    ops = ("Where", "DynamicPartition", "Range")
    misses = (
        ("tf.reduce_sum(tf.boolean_mask(c[:, :4], tf.transpose(v) > 0))", "multiply by the mask"),
        ("tf.dynamic_partition(c[0, :4], tf.cast(v[:, 0] > 0, tf.int32), 2)[1]", "multiply by the mask"),
        ("tf.cast(tf.reduce_sum(tf.range(tf.cast(v[1, 0], tf.int32))), f)", "sequence_mask"),
    )

    def shadow(self, site: Site) -> Shadow:
        instead = (
            "count in tf.sequence_mask(n, most) of a fixed length"
            if site.node.op == "Range"
            else "keep all entries and multiply by the mask, or choose with tf.where(mask, x, 0.0)"
        )
        site.decline(f"how many entries {site.node.op} gives hangs on a severed value; {instead}")
