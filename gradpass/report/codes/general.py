"""GP100: an op that no other code names."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class SeveringOp(Code):
    """TensorFlow registers no derivative for this op: its gradient function answers None.

    Whatever comes before the op and reaches the loss only through it gets None. Some ops cannot have a derivative
    (their result is a number of things, a text, a shape); for others TensorFlow merely does not have one.
    """

    code = "GP100"
    name = "severing-op"
    message = "{what} gives its input no gradient: {whom} {gets}"
    help = "compute the same with ops that have a gradient, or give the op one with tf.custom_gradient"
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
