"""Ops that move values and change none: any shadow goes through."""

from __future__ import annotations

from typing import Any

from gradpass.program import opdefs
from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow


class Carried(Rule):
    """Reshape, transpose, slice, concat and their like do to the shadow what they do to the value.

    A distribution is carried with its support where a single value comes in and nothing is put beside it; joined with
    other values, or padded, its mean goes on.
    """

    name = "carried"
    ops = (
        "Identity", "Snapshot", "Reshape", "Transpose", "ExpandDims", "Squeeze", "Tile",
        "BroadcastTo", "ReverseV2", "Roll", "EnsureShape", "ConcatV2", "Pack", "Unpack", "Split", "SplitV",
        "Pad", "PadV2", "MirrorPad", "IdentityN", "Fill", "SpaceToDepth", "DepthToSpace", "BatchToSpaceND",
        "SpaceToBatchND", "MatrixDiagPart", "MatrixTranspose",
    )  # fmt: skip
    hits = (
        "tf.reduce_sum(tf.cast(tf.reshape(tf.transpose(v > 0), [2, 6]), f))",
        "tf.reduce_sum(tf.gather(c, tf.concat([tf.argmax(v, 1)[1:], tf.argmin(v, 1)[:2]], 0)))",
        "tf.reduce_sum(tf.gather(c, tf.expand_dims(tf.argmax(v, 1), 1)[::2]))",
        "tf.reduce_sum(tf.gather(c, tf.squeeze(tf.expand_dims(tf.argmax(v, 1), 0))))",
        "tf.reduce_sum(tf.cast(tf.stack(tf.unstack(v > 0, axis=1)), f))",
        "tf.reduce_sum(tf.cast(tf.pad(tf.cast(v, tf.int32), [[1, 1], [0, 0]]), f))",
    )  # fmt: skip
    fills = ("Pad", "PadV2", "Fill", "ConcatV2", "Pack", "IdentityN")

    def shadow(self, site: Site) -> Shadow | list[Shadow | None]:
        node = site.node
        custom = node.attr("_gradient_op_type")
        if custom is not None and custom.s.decode() in node.function.program.custom_gradients:
            site.decline("a custom gradient stops it on purpose; change that function if it should flow")
        if custom is not None and custom.s and not node.function.is_graph:
            site.decline(
                "its custom gradient is lost, and no rule serves what it stands around; save the model again with "
                "tf.saved_model.SaveOptions(experimental_custom_gradients=True)"
            )
        data = self._data(site)
        shadows = [site.shadow(i) for i in data]
        if any(site.shadow(i) is not None for i in range(len(node.inputs)) if i not in data):
            site.decline("a shape or position that it takes is computed from a severed value")
        only = shadows[0]
        if node.op in ("Identity", "Snapshot", "EnsureShape") and only is not None:
            return only
        if node.op == "Squeeze" and isinstance(only, Categorical):
            return self._squeezed(site, only)
        if len(data) == 1 and isinstance(only, Categorical) and node.op not in self.fills:
            return self._distribution(site, only, data[0])
        if node.op == "IdentityN":
            return list(shadows)
        tensors = [site.numeric(i) if i in data else site.hard(i) for i in range(len(node.inputs))]
        kind = Probability if node.output_dtype(0) == 10 else Numeric
        return [kind(t) for t in site.replay(tensors)]

    @staticmethod
    def _data(site: Site) -> list[int]:
        """The flat inputs that hold values: those that have the type of the first output."""
        signature = opdefs.get(site.node.op)
        assert signature is not None
        first = signature.outputs[0]
        found: list[int] = []
        at = 0
        for arg, count in opdefs.arity(signature.inputs, site.node.attr):
            if (arg.type_attr, arg.list_attr) == (first.type_attr, first.list_attr):
                found += range(at, at + count)
            at += count
        return found

    @staticmethod
    def _squeezed(site: Site, shadow: Categorical) -> Shadow:
        """Without axes Squeeze would also drop a class axis of one: they are named here."""
        sizes = shadow.weights.shape[:-1].as_list()
        axes = list(site.node.attr("squeeze_dims").list.i) or [i for i, size in enumerate(sizes) if size == 1]
        if not site.node.attr("squeeze_dims").list.i and None in sizes:
            site.decline("it drops every axis of size 1, and not all sizes are known")
        axes = [axis % len(sizes) for axis in axes]
        if len(shadow.support.shape) == 1:
            return Categorical(tf.squeeze(shadow.weights, axes), shadow.support, shadow.counts)
        support = tf.broadcast_to(shadow.support, tf.shape(shadow.weights))
        return Categorical(tf.squeeze(shadow.weights, axes), tf.squeeze(support, axes))

    @staticmethod
    def _distribution(site: Site, shadow: Categorical, place: int) -> list[Shadow | None]:
        """Each weight is moved as the value is: the class axis goes in front and the op is mapped over it."""
        if len(shadow.support.shape) != 1:
            # The support differs from element to element, so it moves with the weights.
            support = tf.broadcast_to(shadow.support, tf.shape(shadow.weights))
            supports = _map_classes(site, support, place)
        else:
            supports = None
        moved = _map_classes(site, shadow.weights, place)
        if supports is None:
            return [Categorical(w, shadow.support, shadow.counts) for w in moved]
        return [Categorical(w, s) for w, s in zip(moved, supports, strict=True)]


class Meant(Rule):
    """A gradient that somebody stopped on purpose stays stopped."""

    name = "stopped-on-purpose"
    ops = ("StopGradient", "PreventGradient")
    misses = (("tf.reduce_sum(tf.stop_gradient(v) ** 2)", "on purpose"),)

    def shadow(self, site: Site) -> Shadow:
        site.decline("the gradient is stopped on purpose (tf.stop_gradient); remove that call if it should flow")


def _map_classes(site: Site, tensor: Any, place: int) -> list[Any]:
    others = {i: site.hard(i) for i in range(len(site.node.inputs)) if i != place}

    def one(values: Any) -> list[Any]:
        return site.replay([values if i == place else others[i] for i in range(len(site.node.inputs))])

    rank = len(tensor.shape)
    moved = tf.vectorized_map(one, tf.transpose(tensor, [rank - 1, *range(rank - 1)]))
    if any(m.shape.rank is None for m in moved):
        site.decline("the rank of what it gives is not known")
    return [tf.transpose(m, [*range(1, len(m.shape)), 0]) for m in moved]
