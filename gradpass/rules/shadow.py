"""What a shadow can be: the differentiable stand-in of a value that carries no gradient.

All tensors are of the region's float dtype. A shadow has the shape of the value it stands for; a Categorical has one
axis more, the last, over its possible values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradpass.rules.lazy import tf


@dataclass(frozen=True)
class Numeric:
    """A number: a rounded value, a count, an integer of which nothing better is known."""

    value: Any

    def numeric(self) -> Any:
        """The value as a float tensor."""
        return self.value


@dataclass(frozen=True)
class Probability:
    """A truth value's chance to be true, in [0, 1].

    Where it is a fact about one index, `weights` are that index's and `holds` [..., K] tells of which of its values the
    fact is true: such facts are not independent of each other, nor of the index.
    """

    value: Any
    weights: Any = None
    holds: Any = None

    def numeric(self) -> Any:
        """What casting it to a number gives in expectation."""
        return self.value


@dataclass(frozen=True)
class Categorical:
    """A distribution over possible values: `weights` [..., K] sum to 1 along the last axis.

    `support` holds the values, [K] or anything that broadcasts to `weights`. Its mean is the Numeric, so whatever is a
    function of one index is an exact consequence: equality, order, look-up, one-hot, integer arithmetic with constants.
    `counts` says that the support is 0 .. K-1, as an index comes, so that its weights need not be sorted by value.
    """

    weights: Any
    support: Any
    counts: bool = False

    def numeric(self) -> Any:
        """The mean."""
        return tf.reduce_sum(self.weights * self.support, axis=-1)

    def expect(self, indicator: Any) -> Any:
        """The expectation of a function of the value, given as its values (bool or float) at the support [..., K]."""
        return tf.reduce_sum(self.weights * tf.cast(indicator, self.weights.dtype), axis=-1)

    def fact(self, holds: Any) -> Probability:
        """The chance of a fact about the value, given as bools at the support [..., K]."""
        return Probability(self.expect(holds), self.weights, holds)

    def map(self, function: Any) -> Categorical:
        """The distribution of `function(value)`."""
        return distribution(self.weights, function(self.support))

    def over(self, size: Any) -> Any:
        """Weights over 0 .. size-1, shape [..., size]; what lies outside has no weight."""
        if self.counts:
            missing = tf.maximum(size - tf.shape(self.weights)[-1], 0)
            paddings = [[0, 0]] * (len(self.weights.shape) - 1) + [[0, missing]]
            return tf.pad(self.weights[..., :size], paddings)
        classes = tf.cast(tf.range(size), self.weights.dtype)
        match = tf.cast(tf.equal(self.support[..., None], classes), self.weights.dtype)
        if len(match.shape) == 2:
            return tf.tensordot(self.weights, match, axes=1)
        return tf.reduce_sum(self.weights[..., None] * match, axis=-2)


Shadow = Numeric | Probability | Categorical


def distribution(weights: Any, support: Any) -> Categorical:
    """A Categorical of which the weights cover what the support was broadcast to (an index plus a larger tensor)."""
    outer = zip(reversed(support.shape[:-1].as_list()), reversed(weights.shape[:-1].as_list()), strict=False)
    wider = len(support.shape) > len(weights.shape) or any(s != 1 and (s is None or s != w) for s, w in outer)
    if wider:
        weights = tf.broadcast_to(weights, tf.broadcast_dynamic_shape(tf.shape(weights), tf.shape(support)))
    return Categorical(weights, support)


def of_one_index(shadows: Sequence[Shadow | None]) -> bool:
    """Whether all of these are distributions or facts of one index, so that they can be combined exactly."""
    weights = [getattr(shadow, "weights", None) for shadow in shadows]
    return weights[0] is not None and all(w is weights[0] for w in weights)
