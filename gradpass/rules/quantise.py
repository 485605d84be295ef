"""Quantising to 8 or 16 bits, and back."""

from __future__ import annotations

from typing import Any

from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.rounding import soft_round
from gradpass.rules.shadow import Numeric, Shadow

BITS = {11: 8, 12: 8, 13: 32, 15: 16, 16: 16}  # types.proto: qint8, quint8, qint32, qint16, quint16


class SoftQuantize(Rule):
    """A quantised number's shadow is the real number that it stands for: clipped to the range, on a smooth staircase.

    Inside the range the derivative is the staircase's, nearly 1 at temperature 1 (straight through), outside it is 0.
    The range itself gets no gradient.
    """

    name = "soft-quantize"
    ops = ("QuantizeV2",)
    no_limit = "the op knows float32 only"
    hits = (
        "tf.reduce_sum(tf.quantization.dequantize(*tf.quantization.quantize("
        "tf.cast(v, tf.float32), -3.0, 3.0, tf.quint8)))",
        "tf.reduce_sum(tf.quantization.dequantize(*tf.quantization.quantize("
        "tf.cast(v, tf.float32), -3.0, 3.0, tf.qint8, mode='SCALED'), mode='SCALED'))",
    )

    def shadow(self, site: Site) -> list[Shadow | None]:
        if any(site.shadow(i) is not None for i in (1, 2)):
            site.decline("its range is computed from a severed value; quantise to a fixed range")
        low, high = (tf.cast(self._beside(site, site.outcome(port)), site.dtype) for port in (1, 2))
        bits = BITS[site.node.output_dtype(0)]
        step = (high - low) / (2.0**bits - 1)
        origin = base = low
        if site.node.attr("mode").s == b"SCALED":
            # One level fewer where the range is narrow, and all of them multiples of the step.
            signed = site.node.output_dtype(0) in (11, 13, 15)
            narrow = 1 if site.node.attr("narrow_range").b else 0
            step = high / (2.0 ** (bits - 1) - 1) if signed else high / (2.0**bits - 1)
            low = -high if signed and narrow else low
            origin = base = tf.zeros_like(step)
        elif site.node.attr("mode").s == b"MIN_FIRST":
            # Rounded as seen from the lower end, and then moved so that 0 stands for itself.
            base = step * tf.round(low / step)
        x = tf.clip_by_value(site.numeric(0), low, high)
        return [Numeric(base + step * soft_round((x - origin) / step, site.scale)), None, None]

    @staticmethod
    def _beside(site: Site, bound: Any) -> Any:
        """A range a channel, along its axis."""
        axis = site.node.attr("axis").i
        if axis < 0:
            return bound
        return tf.reshape(bound, [-1] + [1] * (site.rank(0) - 1 - axis))


class Dequantized(Rule):
    """What a quantised number stands for is its shadow already."""

    name = "dequantized"
    ops = ("Dequantize",)
    misses = (
        (
            "tf.quantization.dequantize(tf.cast(tf.constant([3]), tf.quint8), tf.reduce_min(v), tf.reduce_max(v))",
            "range",
        ),
    )

    def shadow(self, site: Site) -> Shadow:
        shadow = site.shadow(0)
        if shadow is None or any(site.shadow(i) is not None for i in (1, 2)):
            site.decline(
                "its range is computed from the weights, to which no surrogate goes; quantise to a fixed range"
            )
        return Numeric(shadow.numeric())
