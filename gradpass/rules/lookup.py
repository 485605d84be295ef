"""Look-ups at computed coordinates: GatherND's rows are mixed as their soft coordinates say."""

from __future__ import annotations

from typing import Any

from gradpass.flow.facts import is_float
from gradpass.program.graph import Node
from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Shadow


class AverageGatherNd(Rule):
    """What is looked up at soft coordinates is its expectation: the rows at the hard ones, mixed along the soft ones.

    Each soft coordinate of a tf.stack is taken by its own weights, as if they were independent; those of coordinates
    that come as one tensor are shared between the two neighbours of their mean. The table's own gradient stays.
    """

    name = "average-gather-nd"
    ops = ("GatherNd", "ResourceGatherNd")
    hits = (
        "tf.reduce_sum(tf.gather_nd(c, tf.stack([tf.argmax(v, 1), [0, 4, 2, 2]], 1)))",
        "tf.gather_nd(c, tf.stack([tf.argmax(v, 1), 1 + tf.argmin(v, 1)], -1))",
        "tf.reduce_sum(tf.gather_nd(c, tf.expand_dims(tf.argmax(v, 1), 1)), 1)",
        "tf.gather_nd(tf.range(12, dtype=f) ** 2, tf.cast(5 + 2 * v[:, :1], tf.int32))",
        "tf.cast(tf.gather_nd(tf.cast(v > 0, tf.int32), [[0, 1], [2, 2]]), f)",
    )

    def shadow(self, site: Site) -> Shadow:
        table = tf.cast(site.variable(0), site.dtype) if site.node.op == "ResourceGatherNd" else site.numeric(0)
        places = site.hard(1)
        if site.shadow(1) is None:
            return site.output(tf.gather_nd(table, places, batch_dims=_batch(site.node)))
        if _batch(site.node):
            site.decline("it looks up by a severed index with batch_dims; use tf.gather with batch_dims instead")
        depth = places.shape[-1]
        if depth is None:
            site.decline("how many coordinates it takes is not known")
        soft = {}
        for i in range(depth):
            weights = coordinate(site, 1, i, tf.shape(table)[i])
            if weights is not None:
                soft[i] = weights
        return site.output(_mixed(table, places, soft, depth))


def _batch(node: Node) -> int:
    found = node.attr("batch_dims")
    return int(found.i) if found is not None else 0


def coordinate(site: Site, index: int, i: int, size: Any, from_end: bool = False) -> Any:
    """Weights [..., size] of one of the coordinates that an input [..., depth] holds; None where it is hard.

    With `from_end` what is negative counts from the end.
    """
    value = site.node.inputs[index]
    if site.shadow(index) is None:
        return None
    node, rank = value.node, site.rank(index)
    while node.op in ("Identity", "Cast") and not is_float(node.inputs[0].dtype):
        node = node.inputs[0].node
    if node.op == "ExpandDims" and rank:
        inner = Site(node, site.region)
        if int(inner.static(1)) in (-1, rank - 1):
            return _weights(inner, 0, size, from_end)
    if node.op == "Pack" and node.attr("axis").i in (-1, rank - 1):
        inner = Site(node, site.region)
        return _weights(inner, i, size, from_end) if inner.shadow(i) is not None else None
    shadow = site.shadow(index)
    if isinstance(shadow, Categorical) and site.hard(index).shape[-1] == 1:
        return tf.squeeze(_weights(site, index, size, from_end), -2)
    position = tf.cast(site.numeric(index)[..., i], site.dtype)
    if from_end:
        position += tf.cast(tf.where(site.hard(index)[..., i] < 0, size, 0), site.dtype)
    return interpolated(position, size)


def _weights(site: Site, index: int, size: Any, from_end: bool) -> Any:
    """`Site.weights`, of an index that may count from the end."""
    shadow = site.shadow(index)
    if not from_end:
        return site.weights(index, size)
    if isinstance(shadow, Categorical):
        behind = tf.cast(size, shadow.support.dtype)
        return shadow.map(lambda x: tf.where(x < 0, x + behind, x)).over(size)
    position = site.numeric(index) + tf.cast(tf.where(site.hard(index) < 0, size, 0), site.dtype)
    return interpolated(position, size)


def interpolated(position: Any, size: Any) -> Any:
    """A soft number as weights of its two neighbours among 0 .. size - 1, shape [..., size]."""
    position = position[..., None]
    last = tf.cast(tf.maximum(size - 2, 0), position.dtype)
    lower = tf.stop_gradient(tf.clip_by_value(tf.floor(position), tf.zeros_like(last), last))
    classes = tf.cast(tf.range(size), position.dtype)
    below, above = (tf.cast(tf.equal(classes, lower + i), position.dtype) for i in (0, 1))
    return below * (1 - (position - lower)) + above * (position - lower)


def _mixed(table: Any, places: Any, soft: dict[int, Any], depth: int) -> Any:
    """Rows [..., soft sizes, rest] at the hard coordinates, mixed by one soft coordinate's weights after another."""
    rank, hard = len(table.shape), [i for i in range(depth) if i not in soft]
    table = tf.transpose(table, [*hard, *soft, *range(depth, rank)])
    lead = len(places.shape) - 1
    coordinates = list(soft.values())
    if hard:
        rows = tf.gather_nd(table, tf.gather(places, hard, axis=-1))
    else:
        rows = tf.tensordot(coordinates.pop(0), table, axes=1)
    for weights in coordinates:
        rest = len(rows.shape) - len(weights.shape)
        shape = tf.concat([tf.shape(weights), tf.ones([rest], tf.int32)], 0)
        rows = tf.reduce_sum(tf.reshape(weights, shape) * rows, axis=lead)
    return rows
