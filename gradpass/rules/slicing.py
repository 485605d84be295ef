"""Slices that start at a computed place."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import MOST, Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.lookup import coordinate
from gradpass.rules.shadow import Shadow
from gradpass.rules.structure import Carried

MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


class AverageSlice(Rule):
    """A slice that starts at a severed place is its expectation: the windows at all starts, mixed by their weights.

    Starts along several axes are taken as if they were independent. How long the slice is stays as it is; a window that
    would reach beyond the end has the last entry there.
    """

    name = "average-slice"
    ops = ("Slice", "StridedSlice")
    hits = (
        "tf.slice(c, [tf.cast(tf.argmax(v[1]), tf.int32), 0], [1, 5])",
        "tf.slice(c, [0, tf.cast(tf.argmax(v[0]), tf.int32)], [3, 2])",
        "c[tf.argmax(v[0])]",
        "c[tf.argmin(v[1]), 1:] + c[1, tf.argmax(v[0]) + 1]",
        "c[-1 - tf.argmax(v[0])]",
        "(lambda i: c[:, i : i + 2])(tf.cast(tf.argmax(v[0]), tf.int32))",
        "tf.gather(c, tf.expand_dims(tf.argmax(v, 1), 1)[1::2])",
    )
    misses = (
        ("tf.reduce_sum(c[:, ::tf.cast(v[1, 0], tf.int32)])", "its step"),
        ("c[..., tf.argmax(v[0])]", "write all axes out"),
    )

    def shadow(self, site: Site) -> Shadow | list[Shadow | None]:
        if all(site.shadow(i) is None for i in range(1, len(site.node.inputs))):
            return Carried().shadow(site)
        strided = site.node.op == "StridedSlice"
        if strided and site.shadow(3) is not None:
            site.decline("its step is severed; take all entries and mask them")
        masks = {name: int(site.node.attr(name).i) if strided else 0 for name in MASKS}
        if masks["ellipsis_mask"] or masks["new_axis_mask"]:
            site.decline("it starts at a severed place beside ... or a new axis; write all axes out")
        table = site.numeric(0)
        axes = site.hard(1).shape[0]
        if axes is None:
            site.decline("how many axes it cuts is not known")
        found = {axis: coordinate(site, 1, axis, tf.shape(table)[axis], strided) for axis in range(axes)}
        soft = {axis: weights for axis, weights in found.items() if weights is not None}
        if not soft:
            site.decline("where it ends is severed, and so how long it is; use a mask over a fixed length")
        if strided and any(int(step) != 1 for axis, step in enumerate(site.static(3)) if axis in soft):
            site.decline("it starts at a severed place and leaves entries out; take all, then every other one")
        return site.output(self._mixed(site, table, soft, masks))

    @staticmethod
    def _mixed(site: Site, table: Any, soft: dict[int, Any], masks: dict[str, int]) -> Any:
        bits, shrunk = sum(1 << axis for axis in soft), masks["shrink_axis_mask"]
        if site.node.op == "Slice":
            keep = tf.constant([axis in soft for axis in range(len(table.shape))])
            whole = (
                tf.where(keep, 0, tf.cast(site.hard(1), tf.int32)),
                tf.where(keep, -1, tf.cast(site.hard(2), tf.int32)),
            )
            made = tf.slice(table, *whole)
        else:
            masks = masks | {"begin_mask": masks["begin_mask"] | bits, "end_mask": masks["end_mask"] | bits}
            masks["shrink_axis_mask"] = shrunk & ~bits
            made = tf.strided_slice(table, *(site.hard(i) for i in (1, 2, 3)), **masks)
            # Of bounds that are not known before the run TensorFlow does not even infer the rank.
            made.set_shape([None] * (len(table.shape) - bin(shrunk & ~bits).count("1")))
        gone = []
        for axis, weights in soft.items():
            before = (1 << axis) - 1
            place = axis - bin(shrunk & ~bits & before).count("1")
            single = bool(shrunk & 1 << axis)
            length = 1 if single else tf.shape(site.outcome(0))[axis - bin(shrunk & before).count("1")]
            if single:
                gone.append(place)
            size = tf.shape(made)[place]
            windows = tf.minimum(tf.range(size)[:, None] + tf.range(length), size - 1)
            known = 1
            for several in (*made.shape, table.shape[axis]):
                known *= several or 1
            if known > MOST:
                site.decline(f"it mixes windows of {known:,} entries in all; slice something smaller")
            made = tf.tensordot(weights, tf.gather(made, windows, axis=place), [[0], [place]])
        return tf.squeeze(made, gone) if gone else made
