"""Arithmetic on whole numbers that have shadows."""

from __future__ import annotations

from typing import Any

from gradpass.flow.facts import is_float
from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.rounding import soft_round
from gradpass.rules.shadow import Categorical, Numeric, Shadow, distribution, of_one_index

DIVISIONS = ("FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod")


class SoftArithmetic(Rule):
    """Sums, differences, products, extremes of whole numbers: the same op on the means of their shadows.

    With one distribution and otherwise hard operands the distribution stays and its support moves, exactly; so does a
    division, which of soft numbers becomes the smooth staircase of the quotient.
    """

    name = "soft-arithmetic"
    ops = ("Add", "AddV2", "Sub", "Mul", "Maximum", "Minimum", "Neg", "Abs", "Square", "AddN", "Pow", *DIVISIONS)
    hits = (
        "tf.reduce_sum(tf.gather(c, tf.minimum(tf.argmax(v, 1) + 1, 2)))",
        "tf.reduce_sum(tf.cast((2 * tf.argmax(v, 1) - tf.argmin(v, 1)), f))",
        "tf.reduce_sum(tf.cast((lambda i: i * i)(tf.argmax(v, 1)), f))",
        "tf.reduce_sum(tf.one_hot((tf.argmax(v, 1) + [[0], [1], [2]])[:, 1:3], 5, dtype=f) * c[0])",
        "tf.reduce_sum(tf.cast(tf.argmax(v, 1) // 2, f))",
        "tf.reduce_sum(tf.cast(tf.cast(8 * v, tf.int32) // 3, f))",
        "tf.reduce_sum(tf.math.floordiv(v, 0.7))",
        "tf.reduce_sum(tf.raw_ops.TruncateDiv(x=v, y=0.7 * tf.ones([4, 3], f)))",
        "tf.reduce_sum(tf.math.floormod(tf.round(v), 2.0))",
    )

    def shadow(self, site: Site) -> Shadow:
        count = len(site.node.inputs)
        shadows = [site.shadow(i) for i in range(count)]
        soft = [s for s in shadows if s is not None]
        first = soft[0]
        if isinstance(first, Categorical) and (len(soft) == 1 or of_one_index(soft)) and count <= 2:
            return distribution(first.weights, self._exact(site, shadows))
        if site.node.op == "Pow":
            site.decline("a power of soft numbers is not defined everywhere")
        operands = [site.numeric(i) for i in range(count)]
        if site.node.op in DIVISIONS:
            return Numeric(self._divided(site, *operands))
        return Numeric(site.replay(operands)[0])

    @staticmethod
    def _exact(site: Site, shadows: list[Shadow | None]) -> Any:
        operands = [
            s.support if isinstance(s, Categorical) else site.numeric(i)[..., None] for i, s in enumerate(shadows)
        ]
        if site.node.op == "TruncateDiv":
            quotient = operands[0] / operands[1]
            return tf.sign(quotient) * tf.floor(tf.abs(quotient))
        return site.replay(operands)[0]

    @staticmethod
    def _divided(site: Site, a: Any, b: Any) -> Any:
        safe = tf.where(tf.equal(b, 0), tf.ones_like(b), b)
        quotient = a / safe
        # Quotients of whole numbers lie 1 / |b| apart: the stair's edge goes half way between two of them, on none.
        whole_numbers = not is_float(site.node.inputs[0].dtype)
        half = 0.5 - 0.5 / tf.abs(safe) if whole_numbers else 0.5 * tf.ones_like(quotient)
        shift = half * tf.sign(quotient) if site.node.op.startswith("Truncate") else half
        whole = soft_round(quotient - tf.stop_gradient(shift), site.scale)
        return a - whole * safe if site.node.op.endswith("Mod") else whole


class SoftReduction(Rule):
    """Reductions of whole numbers: the same reduction of the means of their shadows."""

    name = "soft-reduction"
    ops = ("Sum", "Prod", "Max", "Min", "Mean", "Cumsum")
    hits = (
        "tf.cast(tf.reduce_sum(tf.cast(v > 0, tf.int32)), f)",
        "tf.reduce_sum(tf.cast(tf.reduce_max(tf.cast(4 * v, tf.int32), axis=1), f))",
        "tf.reduce_sum(tf.cast(tf.cumsum(tf.cast(v > 0, tf.int32), axis=1), f))",
    )

    def shadow(self, site: Site) -> Shadow:
        return Numeric(site.replay([site.numeric(0), site.hard(1)])[0])
