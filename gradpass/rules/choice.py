"""Choices: the index of the best, and what is looked up by it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gradpass.flow.facts import recorded_shape
from gradpass.program.graph import Node, Value
from gradpass.rules.base import MOST, Kind, Rule, Site, constant
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Probability, Shadow, distribution
from gradpass.soft import simplex

BIG = 1e37  # stands for infinity where 0 * inf or inf - inf would make NaN; below float32's largest


def mode(site: Site) -> str:
    """Which projection onto the simplex a choice uses."""
    return site.knobs.choice


class SoftmaxArgmax(Rule):
    """The index of the largest (smallest) entry becomes a distribution over indices: the softmax of the entries.

    With temperature T the weights are softmax(x / (T * std(x))) along the class axis, the spread taken a row at a time;
    as T goes to 0 all weight is on the index that the op gives. `--choice sparse`, `p3/2` and `p4/3` take sparser
    projections onto the simplex, 0 for an entry more than T below the best. Sources: Jang, Gu, Poole, "Categorical
    Reparameterization with Gumbel-Softmax", 2017, without the noise; Martins, Astudillo, "From Softmax to Sparsemax",
    2016.
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
        scores = site.numeric(0)
        rank = len(scores.shape)
        axis = int(site.static(1)) % rank
        if site.node.op == "ArgMin":
            scores = -scores
        scores = tf.transpose(scores, [i for i in range(rank) if i != axis] + [axis])
        weights = simplex.weights(scores / site.temperature(scores, -1), mode(site))
        return Categorical(weights, tf.cast(tf.range(tf.shape(scores)[-1]), site.dtype), counts=True)


class ExtremeMask(Rule):
    """The mask `x == max(x)` becomes the weights of the largest entry along the axes of that max: their softmax.

    The weights add up to 1, so with m equal extremes each has 1 / m where the mask has 1. It serves `tf.reduce_max` and
    `tf.reduce_min` of the same value, with the axes kept, put back by tf.expand_dims, or all of them; any other
    equality is `smooth-equal`'s.
    """

    name = "extreme-mask"
    ops = ("Equal", "NotEqual")
    hits = (
        "tf.reduce_sum(tf.cast(v == tf.reduce_max(v, 1, keepdims=True), f) * c[0, :3])",
        "tf.reduce_sum(tf.cast(tf.equal(tf.expand_dims(tf.reduce_min(v, 0), 0), v), f) @ c, 1)",
        "tf.reduce_sum(tf.cast(v != tf.reduce_max(v), f) * c[:1, :3])",
    )

    def serves(self, node: Node) -> bool:
        return any(_extreme(node, place) is not None for place in (0, 1))

    def shadow(self, site: Site) -> Shadow:
        place, axes, largest = next((i, *found) for i in (0, 1) if (found := _extreme(site.node, i)) is not None)
        weights = self._weights(site, place, sorted(axis % site.rank(place) for axis in axes), largest)
        return Probability(weights if site.node.op == "Equal" else 1 - weights)

    @staticmethod
    def _weights(site: Site, place: int, axes: list[int], largest: bool) -> Any:
        """The weights in the shape of the value, its reduced axes moved to the end and made one meanwhile."""
        x = site.numeric(place)
        others = [i for i in range(len(x.shape)) if i not in axes]
        moved = tf.transpose(x if largest else -x, [*others, *axes])
        flat = tf.reshape(moved, tf.concat([tf.shape(moved)[: len(others)], [-1]], 0))
        made = simplex.weights(flat / site.temperature(flat, -1), mode(site))
        back = [[*others, *axes].index(i) for i in range(len(x.shape))]
        return tf.transpose(tf.reshape(made, tf.shape(moved)), back)


def _extreme(node: Node, place: int) -> tuple[list[int], bool] | None:
    """The axes over which the other side is the extreme of this one, and whether the largest; None if it is not."""
    value, other = (_bare(node.inputs[i]) for i in (place, 1 - place))
    put_back: list[int] = []
    if other.node.op == "ExpandDims":
        added = constant(other.node.inputs[1].node)
        if added is None:
            return None
        put_back = [int(added.item())]
        other = _bare(other.node.inputs[0])
    if other.node.op not in ("Max", "Min") or _bare(other.node.inputs[0]) != value:
        return None
    found = constant(other.node.inputs[1].node)
    if found is None:
        return None
    axes, largest = [int(axis) for axis in found.reshape(-1)], other.node.op == "Max"
    shape = recorded_shape(value)
    rank = None if shape is None or shape.unknown_rank else len(shape.dim)
    if other.node.attr("keep_dims").b:
        return None if put_back else (axes, largest)
    same = put_back == axes if rank is None else [i % rank for i in put_back] == [i % rank for i in axes]
    return (axes, largest) if same or len(axes) == rank else None


def _bare(value: Value) -> Value:
    """The value behind identities; a read of a variable counts as its first read."""
    while value.node.op in ("Identity", "Snapshot"):
        value = value.node.inputs[0]
    if value.node.op == "ReadVariableOp":
        reads = [node for node in value.node.function.nodes if node.op == "ReadVariableOp"]
        value = next(read.output(0) for read in reads if read.inputs[0] == value.node.inputs[0])
    return value


class SoftOneHot(Rule):
    """The one-hot row of a soft index is its distribution; a soft number is shared between its two neighbours."""

    name = "soft-one-hot"
    ops = ("OneHot",)
    hits = (
        "tf.reduce_sum(tf.one_hot(tf.argmax(v, 1), 3, dtype=f) @ c)",
        "tf.reduce_sum(tf.one_hot(tf.argmax(v, 1), 3, axis=0, on_value=2.0, off_value=-1.0, dtype=f) * c[:, :4])",
        "tf.reduce_sum(tf.one_hot(tf.cast(v, tf.int32), 4, dtype=f) * tf.range(4, dtype=f))",
        "tf.one_hot([0, 2], 3, on_value=v[0, 0], off_value=v[1, 0], dtype=f)",
    )

    def kind_of(self, node: Node, severed: Collection[int]) -> Kind:
        return "exact" if set(severed) <= {2, 3} else self.kind  # it is linear in its on_value and off_value

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
        places, rows = site.hard(1).shape.num_elements() or 1, table.shape[axis] or 1
        if places * rows > MOST:
            site.decline(
                f"it looks {places:,} places up in {rows:,} rows, and a surrogate mixes all rows for each of them: "
                "look fewer up at once, or sort the rows themselves"
            )
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
