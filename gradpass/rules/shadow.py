"""What a shadow can be: the differentiable stand-in of a value that carries no gradient.

All tensors are of the region's float dtype. A shadow has the shape of the value it stands for; a Categorical has one
axis
more, the last, over its possible values.
"""

from __future__ import annotations

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
    """A truth value's chance to be true, in [0, 1]."""

    value: Any

    def numeric(self) -> Any:
        """What casting it to a number gives in expectation."""
        return self.value


@dataclass(frozen=True)
class Categorical:
    """A distribution over possible values: `weights` [..., K] sum to 1 along the last axis.

    `support` holds the values, [K] or anything that broadcasts to `weights`. Its mean is the Numeric, so whatever is a
    function of one index is an exact consequence: equality, order, look-up, one-hot, integer arithmetic with constants.
    """

    weights: Any
    support: Any

    def numeric(self) -> Any:
        """The mean."""
        return tf.reduce_sum(self.weights * self.support, axis=-1)

    def expect(self, indicator: Any) -> Any:
        """The expectation of a function of the value, given as its values (bool or float) at the support [..., K]."""
        return tf.reduce_sum(self.weights * tf.cast(indicator, self.weights.dtype), axis=-1)

    def map(self, function: Any) -> Categorical:
        """The distribution of `function(value)`."""
        return Categorical(self.weights, function(self.support))

    def over(self, size: Any) -> Any:
        """Weights over 0 .. size-1, shape [..., size]; what lies outside has no weight."""
        classes = tf.cast(tf.range(size), self.weights.dtype)
        match = tf.cast(tf.equal(self.support[..., None], classes), self.weights.dtype)
        if len(match.shape) == 2:
            return tf.tensordot(self.weights, match, axes=1)
        return tf.reduce_sum(self.weights[..., None] * match, axis=-2)


Shadow = Numeric | Probability | Categorical
