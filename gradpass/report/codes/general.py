"""GP100: an op that no other code names."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code


class SeveringOp(Code):
    """TensorFlow registers no derivative for this op: its gradient function answers None.

    Whatever comes before the op and reaches the loss only through it gets None. Some ops cannot have a derivative
    (their result is a number of things, a text, a shape); for others TensorFlow merely does not have one.
    """

    code = "GP100"
    name = "severing-op"
    message = "{what} gives its input no gradient: {whom} {gets}"
    help = "compute it with ops that have a gradient, or write its derivative yourself by `tf.custom_gradient`"
    helps: ClassVar = {
        "LinSpace": "use `start + (stop - start) * tf.linspace(0.0, 1.0, n)`: the same values, with a gradient",
        "OneHot": "use `off + (on - off) * tf.one_hot(indices, depth)`: the same values, with a gradient",
        "RandomShuffle": "shuffle the places: `tf.gather(x, tf.random.shuffle(tf.range(tf.shape(x)[0])))`",
        "Range": "count the steps and scale them: `start + step * tf.range(3.0)` for 3 numbers",
    }
    failing = """
v = tf.Variable(2.0)

def loss():
    return tf.reduce_sum(tf.range(v, v + 3.0))
"""
    fixed = """
v = tf.Variable(2.0)

def loss():
    return tf.reduce_sum(v + tf.range(3.0))
"""
