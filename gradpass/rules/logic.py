"""Logic: probabilities combine as those of independent events, and a choice between values mixes them."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow, distribution, of_one_index


class ProductLogic(Rule):
    """And is p q, or is p + q - p q, not is 1 - p: the probabilities of independent events.

    Facts about one index are not independent; they combine exactly.
    """

    name = "product-logic"
    ops = ("LogicalAnd", "LogicalOr", "LogicalNot")
    hits = (
        "tf.reduce_sum(tf.cast(tf.logical_and(v > 0, v < 1), f))",
        "tf.reduce_sum(tf.cast(tf.logical_or(v > 0.5, tf.logical_not(v > -1.0)), f))",
        "tf.reduce_sum(tf.cast(tf.math.logical_xor(v > 0.5, v > -1.0), f))",
    )

    def shadow(self, site: Site) -> Shadow:
        facts = [site.shadow(i) for i in range(len(site.node.inputs))]
        if of_one_index(facts):
            first = facts[0]
            assert isinstance(first, Probability)
            holds = site.replay([fact.holds for fact in facts if isinstance(fact, Probability)])[0]
            return Probability(tf.reduce_sum(first.weights * tf.cast(holds, site.dtype), -1), first.weights, holds)
        p = site.probability(0)
        if site.node.op == "LogicalNot":
            return Probability(1 - p)
        q = site.probability(1)
        return Probability(p * q if site.node.op == "LogicalAnd" else p + q - p * q)


class AllAny(Rule):
    """All is the product of the probabilities, any the complement of the product of their complements."""

    name = "all-any"
    ops = ("All", "Any")
    hits = (
        "tf.reduce_sum(tf.cast(tf.reduce_any(v > 0, axis=1), f))",
        "tf.cast(tf.reduce_all(v > -2.0), f)",
        "tf.reduce_sum(tf.cast(tf.reduce_all(tf.reshape(v, [2, 2, 3]) < 2.5, axis=[0, 2], keepdims=True), f))",
    )

    def shadow(self, site: Site) -> Shadow:
        p = site.probability(0)
        axis = site.hard(1)
        keep = site.node.attr("keep_dims").b
        if site.node.op == "All":
            return Probability(tf.reduce_prod(p, axis=axis, keepdims=keep))
        return Probability(1 - tf.reduce_prod(1 - p, axis=axis, keepdims=keep))


class MixedSelect(Rule):
    """Select by a soft condition mixes both values with the condition's probability.

    Values that are not finite where they are not chosen count as 0 in the mixture, so it cannot turn NaN. With a hard
    condition it chooses between the shadows of its values.
    """

    name = "mixed-select"
    ops = ("Select", "SelectV2")
    hits = (
        "tf.reduce_sum(tf.where(v > 0, tf.constant(2.0, f), tf.constant(5.0, f)))",
        "tf.reduce_sum(tf.where(tf.constant([True, False, True]), tf.round(v), tf.floor(v)))",
        "tf.reduce_sum(tf.gather(c, (lambda i: tf.where(i < 0, i + 3, i))(tf.argmax(v, 1))))",
        "tf.reduce_sum(tf.where(v > 9, tf.constant(float('inf'), f), tf.constant(2.0, f)))",
    )

    def shadow(self, site: Site) -> Shadow:
        kept = self._one_index(site)
        if kept is not None:
            return kept
        a, b = site.finite(1), site.finite(2)
        if site.shadow(0) is None:
            return site.output(tf.where(_rows(site, site.hard(0)), a, b))
        p = _rows(site, site.probability(0))
        mixed = p * a + (1 - p) * b
        return Probability(mixed) if site.node.output_dtype(0) == 10 else Numeric(mixed)

    @staticmethod
    def _one_index(site: Site) -> Categorical | None:
        """A choice between values of one index by a fact about it is exact: keras.ops.take wraps indices so."""
        fact, a, b = (site.shadow(i) for i in range(3))
        chosen = [s for s in (a, b) if s is not None]
        if not isinstance(fact, Probability) or not of_one_index([fact, *chosen]):
            return None
        if any(not isinstance(s, Categorical) for s in chosen) or site.node.output_dtype(0) == 10:
            return None
        supports = [
            s.support if isinstance(s, Categorical) else site.numeric(i)[..., None] for i, s in ((1, a), (2, b))
        ]
        return distribution(fact.weights, tf.where(fact.holds, *supports))


def _rows(site: Site, condition: Any) -> Any:
    """The condition with axes added behind: Select (not SelectV2) takes a vector that chooses whole rows."""
    rank = len(condition.shape)
    if site.node.op == "Select" and rank == 1:
        for _ in range(site.rank(1) - 1):
            condition = tf.expand_dims(condition, -1)
    return condition
