"""Rounding: whole numbers, and casts that cut digits off."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow
from gradpass.rules.threshold import bump

FLOATS = (1, 2, 14, 19)
INTEGERS = (3, 4, 5, 6, 9, 17, 22, 23)
BOOL = 10


def soft_round(x: Any, temperature: Any) -> Any:
    """A smooth staircase, the identity for a high temperature and tf.round for a low one.

    s(x) = m + tanh(a (x - m)) / (2 tanh(a / 2)) with m = floor(x) + 1/2 and a = 1 / temperature; from Agustsson, Theis,
    "Universally Quantized Neural Compression", 2020, equation 10.
    """
    # Below 1e-3 it differs from the identity by less than 1e-7, and would in the end be 0 / 0.
    alpha = tf.maximum(tf.cast(1 / temperature, x.dtype), tf.cast(1e-3, x.dtype))
    middle = tf.floor(x) + 0.5
    return middle + tf.tanh(alpha * (x - middle)) / (2 * tf.tanh(alpha / 2))


class SoftRound(Rule):
    """Rounding becomes a smooth staircase; at temperature 1 it is nearly a straight line, so its derivative nearly 1.

    Floor and Ceil are the staircase moved by one half. The temperature is relative to the width of a stair.
    """

    name = "soft-round"
    ops = ("Round", "Rint", "Floor", "Ceil")
    hits = (
        "tf.reduce_sum(tf.round(v))",
        "tf.reduce_sum(tf.math.rint(v) * tf.floor(v))",
        "tf.reduce_sum(tf.math.ceil(v))",
    )

    def shadow(self, site: Site) -> Shadow:
        shift = {"Floor": -0.5, "Ceil": 0.5}.get(site.node.op, 0.0)
        return Numeric(soft_round(site.numeric(0) + shift, site.scale))


class SoftCast(Rule):
    """A cast to whole numbers is a smooth staircase through zero; a truth value becomes a distribution over 0 and 1.

    A distribution stays one, also over floats, so that a comparison of what was cast is still exact. To bool, a number
    becomes its chance not to be zero.
    """

    name = "soft-cast"
    ops = ("Cast",)
    hits = (
        "tf.reduce_sum(tf.cast(tf.cast(v, tf.int32), f))",
        "tf.reduce_sum(tf.gather(c[:, 0], tf.cast(v > 0, tf.int32)))",
        "tf.reduce_sum(tf.cast(tf.cast(v, tf.bool), f))",
    )

    def shadow(self, site: Site) -> Shadow:
        source = site.node.inputs[0].dtype
        target = site.node.output_dtype(0)
        shadow = site.shadow(0)
        assert shadow is not None
        if target == source:
            return shadow
        if target == BOOL:
            if isinstance(shadow, Categorical):
                return Probability(shadow.expect(tf.not_equal(shadow.support, 0)))
            return Probability(1 - bump(site, site.numeric(0)))
        if target not in INTEGERS and target not in FLOATS:
            site.decline("it casts to a type that has no surrogate")
        if isinstance(shadow, Probability):
            p = site.probability(0)[..., None]
            return Categorical(tf.concat([1 - p, p], axis=-1), tf.constant([0, 1], site.dtype))
        if isinstance(shadow, Categorical) or target in FLOATS:
            return shadow
        if source in FLOATS:
            x = site.numeric(0)
            t = site.scale
            # Truncation rounds towards zero: half a stair down above it, half a stair up below.
            return Numeric(soft_round(x - 0.5 * tf.tanh(x / t), t))
        return shadow
