"""A branch that is chosen by a severed value: the expectation over which of them is taken."""

from __future__ import annotations

from typing import Any

from gradpass.flow.facts import is_float
from gradpass.program.graph import Value
from gradpass.rules.base import Rule, Site
from gradpass.rules.both import Evaluator, branches_of
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Numeric, Probability, Shadow, distribution


class MixedBranches(Rule):
    """`tf.cond(q, a, b)` is `P(q) * a() + (1 - P(q)) * b()`; tf.switch_case mixes by the index's weights.

    What the inputs of the branches give by themselves stays as it is: both are computed on the hard inputs once more,
    beside the branch that runs, and what the other one makes infinite or NaN counts as if it made the same. So both may
    hold only what cannot fail: an op that may raise, write or draw (an integer division, a look-up, an assignment) is
    named and refused; tf.where over both results serves there.
    """

    name = "mixed-branches"
    ops = ("If", "StatelessIf", "Case", "StatelessCase")
    hits = (
        "tf.cond(tf.reduce_sum(v) > 0, lambda: 2 * c, lambda: tf.square(c))",
        "tf.cond(v[0, 0] > v[1, 1], lambda: tf.reduce_sum(tf.exp(c), 0), lambda: c[1])",
        "tf.cond(v[0, 0] > v[1, 1], lambda: tf.cond(c[0, 0] > 0, lambda: c + 1, lambda: -c), lambda: c)",
        "tf.gather(c[0], tf.cond(v[0, 0] > v[1, 1], lambda: tf.constant(1), lambda: tf.constant(3)))",
        "tf.switch_case(tf.argmax(v[0], output_type=tf.int32), [lambda: 2 * c, lambda: c - 1, lambda: tf.tanh(c)])",
        "tf.cast(tf.cond(v[0, 0] > v[1, 1], lambda: c[0, 0] > 0, lambda: c[0, 1] > 0), f)",
    )
    misses = (
        (
            "tf.cast(tf.cond(v[0, 0] > 0, lambda: tf.cast(c, tf.int32) // tf.cast(c, tf.int32), "
            "lambda: tf.cast(c, tf.int32)), f)",
            "FloorDiv",
        ),
        (
            "tf.cond(v[0, 0] > 0, lambda: tf.random.normal([2], dtype=f), lambda: tf.zeros([2], f))",
            "RandomStandardNormal",
        ),
    )

    def shadow(self, site: Site) -> list[Shadow | None]:
        node = site.node
        functions = branches_of(node)
        weights = self._weights(site, len(functions))
        used = sorted(_used(site))
        evaluators = [Evaluator.of_branch(site, function) for function in functions]
        made: list[Shadow | None] = [None] * (1 + max(used))
        for port in used:
            value = node.output(port)
            parts = [e.result(port) for e in evaluators]
            hard = site.outcome(port)
            made[port] = _mixture(site, value, [_fitted(site, p, hard) for p in parts], hard, weights)
        return made

    @staticmethod
    def _weights(site: Site, count: int) -> list[Any]:
        """The chance of each branch, scalars."""
        if site.rank(0) != 0:
            site.decline("its predicate is no scalar; write the comparison out, e.g. tf.cond(tf.size(x) > 0, …)")
        if site.node.op in ("If", "StatelessIf"):
            if site.hard(0).dtype != tf.bool:
                site.decline("its predicate is a number; write the comparison out: tf.cond(x != 0, …)")
            p = site.probability(0)
            return [p, 1 - p]
        weights = tf.unstack(site.weights(0, max(count, 2)), num=max(count, 2))[: count - 1]
        # Every other index takes the last branch.
        return [*weights, 1 - tf.add_n(weights) if weights else tf.ones([], site.dtype)]


def _used(site: Site) -> set[int]:
    """The outputs of the node that somebody reads and that can have a shadow."""
    return {port for port in site.used() if tf.as_dtype(site.node.output_dtype(port)) not in (tf.resource, tf.variant)}


def _fitted(site: Site, part: Any, hard: Any) -> Any:
    """A branch's result in the shape of the one that runs, which stands in for it where its own is another."""
    if part.shape.rank is None or part.shape.rank != hard.shape.rank:
        site.decline("its branches give results of different ranks")
    if part.shape.is_fully_defined() and part.shape == hard.shape:
        return part
    same = tf.reduce_all(tf.equal(tf.shape(part), tf.shape(hard)))
    size = tf.size(hard)
    flat = tf.concat([tf.reshape(part, [-1]), tf.zeros([size], part.dtype)], 0)[:size]
    return tf.where(same, tf.reshape(flat, tf.shape(hard)), hard)


def _mixture(site: Site, value: Value, parts: list[Any], hard: Any, weights: list[Any]) -> Shadow:
    """The expectation of a result; of a whole number the distribution over what the branches give."""
    if is_float(value.dtype) or value.dtype == 10:
        # What only another branch makes infinite or NaN must not become the gradient's.
        own = tf.cast(hard, site.dtype)
        own = tf.stop_gradient(tf.where(tf.math.is_finite(own), own, tf.zeros_like(own)))
        numbers = [tf.cast(part, site.dtype) for part in parts]
        safe = [tf.where(tf.math.is_finite(n), n, own) for n in numbers]
        mixed = tf.add_n([w * s for w, s in zip(weights, safe, strict=True)])
        return Numeric(mixed) if is_float(value.dtype) else Probability(mixed)
    support = tf.stack([tf.cast(part, site.dtype) for part in parts], -1)
    return distribution(tf.broadcast_to(tf.stack(weights), tf.shape(support)), support)
