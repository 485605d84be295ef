"""Order: the indices of the best k, ranks, and whether a class is among the best."""

from __future__ import annotations

from typing import Any

from gradpass.program.graph import Node, Value
from gradpass.rules.base import Rule, Site, constant
from gradpass.rules.choice import BIG, mode
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow
from gradpass.rules.threshold import step
from gradpass.soft import order

TOP_K = ("TopKV2", "TopK", "ApproxTopK")


class SoftOrder(Rule):
    """Each of the k best indices becomes a distribution over indices; so does each place of an argsort.

    For the rank with the entry a the weights are softmax(-|a - x| / (T * std(x))) along the class axis (with `--choice`
    another projection onto the simplex): Prillo, Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort
    Operator", 2020. So rows that are gathered by a soft argsort come out as expected rows. The argsort of an argsort is
    the rank; its weights are normalised over ranks. The values that top_k gives keep TensorFlow's own gradient.
    Where more than 2^24 weights were needed, the mean index or rank is computed in O(n log n) instead.
    """

    name = "softsort"
    ops = TOP_K
    hits = (
        "tf.reduce_sum(tf.gather(c, tf.math.top_k(v, 2).indices)[:, 0])",
        "tf.reduce_sum(tf.cast(tf.argsort(tf.argsort(v)), f) * tf.range(3, dtype=f))",
        "tf.reduce_sum(tf.cast(tf.argsort(tf.argsort(v, 0, 'DESCENDING'), 0), f)[0] * c[0, :3])",
        "tf.gather(c, tf.argsort(v[0]))",
        "tf.gather(tf.reshape(tf.range(12, dtype=f) ** 2, [4, 3]), tf.argsort(v), batch_dims=1)",
        "tf.reduce_sum(tf.one_hot(tf.math.top_k(v, 2).indices, 3, dtype=f), axis=1)",
        "tf.cast(tf.math.top_k(tf.cast(8 * v, tf.int32), 2).values, f)",
    )

    def shadow(self, site: Site) -> list[Shadow | None]:
        x = site.numeric(0)
        if site.node.op == "ApproxTopK" and site.node.attr("reduction_dimension").i not in (-1, len(x.shape) - 1):
            site.decline("it looks for the best along another axis than the last; transpose its input")
        hard = _places(site)
        # The own gradient of the values goes on beside the shadow, which must not count it again.
        given = tf.cast(site.hard(0), site.dtype) if site.is_source(0) else x
        values = Numeric(_along(given, hard))
        inverted = _inverted(site)
        if inverted is not None:
            return [values, self._ranks(site, *inverted, tf.shape(hard)[-1])]
        return [values, self._indices(site, x, hard)]

    @staticmethod
    def _indices(site: Site, x: Any, hard: Any) -> Shadow:
        temperature = site.temperature(x, -1)
        if not _too_many(site, x.shape, hard.shape[-1]):
            weights = order.softsort(x, _along(x, hard), temperature, mode(site))
            return Categorical(weights, tf.cast(tf.range(tf.shape(x)[-1]), site.dtype), counts=True)
        if site.node.op == "ApproxTopK" or not site.node.attr("sorted").b:
            site.decline("it gives so many indices in no certain order; use tf.math.top_k, sorted")
        return Numeric(order.argsort(x, temperature, descending=True)[..., : tf.shape(hard)[-1]])

    @staticmethod
    def _ranks(site: Site, origin: Site, decreasing: bool, count: Any) -> Shadow:
        """The shadow of an inverted permutation: for each entry of what was sorted, the place that it came to."""
        x = origin.numeric(0)
        temperature = origin.temperature(x, -1)
        if _too_many(site, x.shape, x.shape[-1]):
            ranks = order.rank(x, temperature, descending=True)
            return Numeric((ranks if decreasing else ranks[..., ::-1])[..., :count])
        weights = order.softsort(_along(x, _places(origin)), x, temperature, mode(site))
        weights = (weights if decreasing else weights[..., ::-1, :])[..., :count, :]
        return Categorical(weights, tf.cast(tf.range(tf.shape(x)[-1]), site.dtype), counts=True)


class SoftInTopK(Rule):
    """Being among the k best becomes the chance that the lead over the k-th best of the others is positive.

    The lead carries noise, which is the kernel's (logistic by default), its temperature relative to the spread of the
    leads. A target that is no class, or whose score is not finite, is never among them: the op's own definition.
    """

    name = "soft-in-top-k"
    ops = ("InTopK", "InTopKV2")

    def shadow(self, site: Site) -> Shadow:
        if site.shadow(1) is not None:
            site.decline("the class that is looked for is severed itself; compare it with tf.math.top_k's indices")
        scores, target = site.numeric(0), site.hard(1)
        k = site.hard(2) if site.node.op == "InTopKV2" else site.node.attr("k").i
        classes = tf.shape(scores)[-1]
        own = tf.one_hot(target, classes, on_value=True, off_value=False, dtype=tf.bool)
        sound = tf.where(tf.math.is_finite(scores), scores, tf.zeros_like(scores))
        lowest = tf.fill(tf.shape(scores), tf.constant(-BIG, scores.dtype))
        others = tf.where(tf.logical_or(own, tf.equal(scores, float("-inf"))), lowest, sound)
        score = tf.reduce_sum(tf.where(own, sound, tf.zeros_like(sound)), axis=-1)
        # With fewer than k others it is among the best whatever they are; with k = 0 never.
        rival = tf.sort(others, axis=-1, direction="DESCENDING")
        rival = tf.gather(rival, tf.clip_by_value(tf.cast(k, tf.int32) - 1, 0, classes - 1), axis=-1)
        beaten = rival <= -BIG
        lead = tf.where(beaten, tf.zeros_like(score), score - rival)
        chance = tf.where(beaten, tf.ones_like(score), step(site, lead))
        valid = tf.reduce_any(tf.logical_and(own, tf.math.is_finite(scores)), axis=-1)
        valid = tf.logical_and(valid, tf.cast(k, tf.int32) > 0)
        return Probability(tf.where(valid, chance, tf.zeros_like(chance)))


def _along(x: Any, places: Any) -> Any:
    """The entries of each row at its places."""
    last = len(x.shape) - 1  # by number: tf2onnx makes an invalid graph of axis=-1 with batch_dims
    return tf.gather(x, places, batch_dims=last, axis=last)


def _too_many(site: Site, shape: Any, k: int | None) -> bool:
    """Whether weights [..., k, n] would not fit; what is unknown counts as 1, an unknown k as n."""
    sizes = shape.as_list()
    total = k or sizes[-1] or 1
    for size in sizes:
        total *= size or 1
    if total > 1 << 24 and mode(site) != "entropic":
        site.decline(f"--choice {mode(site)} needs {total} weights here; the entropic choice does without them")
    return total > 1 << 24


def _places(site: Site) -> Any:
    """The indices that the op itself gives."""
    return site.replay([site.hard(i) for i in range(len(site.node.inputs))])[1]


def _inverted(site: Site) -> tuple[Site, bool] | None:
    """The op whose whole order of the last axis this one sorts again, and whether it does so from its first place on.

    tf.argsort(tf.argsort(x)): between the two stand a negation, a shift by one, and transpositions that cancel.
    """
    value = site.node.inputs[0]
    decreasing, moves = False, []
    while value.node.op not in TOP_K:
        inner = value.node
        if inner.op in ("Neg", "Identity", "Cast", "Transpose"):
            decreasing ^= inner.op == "Neg"
            if inner.op == "Transpose":
                moves.append(inner)
            value = inner.inputs[0]
        elif inner.op in ("Sub", "Add", "AddV2") and _one_number(inner.inputs[1].node):
            value = inner.inputs[0]
        elif inner.op in ("Sub", "Add", "AddV2") and _one_number(inner.inputs[0].node):
            decreasing ^= inner.op == "Sub"
            value = inner.inputs[1]
        else:
            return None
    origin = Site(value.node, site.region)
    return (origin, decreasing) if value.port == 1 and _cancel(moves) and _whole(origin) else None


def _one_number(node: Node) -> bool:
    value = constant(node)
    return value is not None and value.size == 1


def _cancel(moves: list[Node]) -> bool:
    """Whether these transpositions, the last first, leave every axis where it was."""
    places: list[int] | None = None
    for move in reversed(moves):
        axes = constant(move.inputs[1].node)
        if axes is None:
            return False
        places = [int(i) if places is None else places[int(i)] for i in axes]
    return places is None or places == sorted(places)


def _whole(site: Site) -> bool:
    """Whether a top_k gives all entries: its k is its input's last size, known or read off its shape."""
    node, size = site.node, site.hard(0).shape[-1]
    if node.op == "TopK":
        return bool(node.attr("k").i == size)
    asked = node.inputs[-1].node
    k = constant(asked)
    if node.op == "TopKV2" and asked.op == "StridedSlice":
        shape, begin = asked.inputs[0].node, constant(asked.inputs[1].node)
        if begin is None or begin.size != 1:
            return False
        if shape.op == "Shape":
            rank = site.rank(0)
            return (shape.inputs[0], int(begin.item()) % rank) == _last_axis(node.inputs[0], rank)
        k = constant(shape)
        k = None if k is None else k[begin.item()]
    return node.op == "TopKV2" and k is not None and size is not None and int(k) == size


def _last_axis(value: Value, rank: int) -> tuple[Value, int]:
    """The last axis of a value as one of what was transposed to make it: tf.argsort reads its k there."""
    axes = constant(value.node.inputs[1].node) if value.node.op == "Transpose" else None
    return (value, rank - 1) if axes is None else (value.node.inputs[0], int(axes[-1]))
